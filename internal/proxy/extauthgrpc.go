package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/fairwaynet/fairway/internal/proxy/message"
	"github.com/fairwaynet/fairway/internal/proxy/upstream"
)

var (
	methodPost    = []byte("POST")
	pathAuthCheck = []byte("/envoy.service.auth.v3.Authorization/Check")
)

// checkGRPC asks by Envoy's ext_authz protocol (envoy.service.auth.v3).
func (a *extAuth) checkGRPC(x *exchange, v *upstream.View, body []byte, o upstream.Options) (verdict, error) {
	raw, err := proto.Marshal(a.question(x, body))
	if err != nil {
		return verdict{}, err
	}
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(raw)))
	frame = append(frame, raw...)
	r := &message.Request{
		Method: methodPost, Scheme: []byte("http"), Authority: []byte(v.ID().String()), Path: pathAuthCheck,
		Length: message.Length(len(frame)), Trailers: true,
		Fields: []message.Field{{Name: nameContentType, Value: valueGRPC, ID: message.ContentType}},
	}
	if id := v.ID(); id.Namespace != "" {
		r.Authority = fmt.Appendf(nil, "%s.%s:%d", id.Name, id.Namespace, id.Port)
	}
	res, err := ask(v, r, frame, o, authAnswer)
	if err != nil {
		return verdict{}, err
	}
	status, ok := message.GetName(res.trailers, "grpc-status")
	if !ok {
		status, _ = message.GetName(res.fields, "grpc-status")
	}
	if res.status != 200 || string(status) != "0" {
		return verdict{}, fmt.Errorf("authorization server: HTTP status %d, gRPC status %q", res.status, status)
	}
	if len(res.body) < 5 || res.body[0] != 0 || int(binary.BigEndian.Uint32(res.body[1:])) != len(res.body)-5 {
		return verdict{}, errors.New("authorization server: not one plain message")
	}
	var answer authv3.CheckResponse
	if err := proto.Unmarshal(res.body[5:], &answer); err != nil {
		return verdict{}, err
	}
	return readVerdict(&answer), nil
}

// question is what the server is asked.
func (a *extAuth) question(x *exchange, body []byte) *authv3.CheckRequest {
	headers := map[string]string{":method": string(x.req.Method), ":path": string(x.req.Path), ":authority": string(x.req.Authority), ":scheme": string(x.req.Scheme)}
	for _, f := range x.req.Fields {
		if !a.wants(&f) {
			continue
		}
		name, v := string(f.Name), string(f.Value)
		if old, ok := headers[name]; ok {
			v = old + "," + v
		}
		headers[name] = v
	}
	id, _ := message.Get(x.req.Fields, message.XRequestID)
	h := &authv3.AttributeContext_HttpRequest{
		Id: string(id), Method: string(x.req.Method), Headers: headers, Path: string(x.req.Path), Host: string(x.req.Authority),
		Scheme: string(x.req.Scheme), Query: string(x.req.Query()), Protocol: x.conn.Protocol, Size: int64(x.req.Length),
	}
	if isText(body) {
		h.Body = string(body)
	} else {
		h.RawBody = body
	}
	c := &authv3.AttributeContext{
		Source:      &authv3.AttributeContext_Peer{Address: socketAddress(netip.AddrPortFrom(x.client, x.conn.Client.Port()))},
		Destination: &authv3.AttributeContext_Peer{Address: socketAddress(x.conn.Local)},
		Request:     &authv3.AttributeContext_Request{Time: timestamppb.New(time.Now()), Http: h},
	}
	if t := x.conn.TLS; t != nil && len(t.PeerCertificates) > 0 {
		cert := t.PeerCertificates[0]
		c.Source.Principal = cert.Subject.String()
		if len(cert.URIs) > 0 {
			c.Source.Principal = cert.URIs[0].String()
		}
	}
	return &authv3.CheckRequest{Attributes: c}
}

// isText tells whether a body may stand in a string of protobuf.
func isText(b []byte) bool { return strings.ToValidUTF8(string(b), "") == string(b) }

func socketAddress(a netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}

// readVerdict reads the server's answer.
func readVerdict(r *authv3.CheckResponse) verdict {
	if r.GetStatus().GetCode() != 0 {
		d := verdict{status: 403}
		if no := r.GetDeniedResponse(); no != nil {
			if code := int(no.GetStatus().GetCode()); code != 0 {
				d.status = denialStatus(code)
			}
			d.fields, _ = readOptions(no.GetHeaders())
			d.body = []byte(no.GetBody())
		}
		return d
	}
	d := verdict{allowed: true}
	ok := r.GetOkResponse()
	d.set, d.add = readOptions(ok.GetHeaders())
	for _, name := range ok.GetHeadersToRemove() {
		d.remove = append(d.remove, strings.ToLower(name))
	}
	set, add := readOptions(ok.GetResponseHeadersToAdd())
	d.response = append(set, add...)
	return d
}

// readOptions returns the fields that replace others, and those that are added.
func readOptions(in []*corev3.HeaderValueOption) (set, add []message.Field) {
	for _, o := range in {
		name := []byte(strings.ToLower(o.GetHeader().GetKey()))
		value := []byte(o.GetHeader().GetValue())
		if raw := o.GetHeader().GetRawValue(); len(value) == 0 && len(raw) > 0 {
			value = raw
		}
		f := message.Field{Name: name, Value: value, ID: message.Lookup(name)}
		if !fieldAllowed(&f) {
			continue
		}
		// The older field says whether to append; servers that know only the newer one
		// leave it out, and its zero value, which would append, cannot be told from
		// nothing said. Envoy replaces then.
		//lint:ignore SA1019 it is what servers send
		if o.GetAppend().GetValue() {
			add = append(add, f)
		} else {
			set = append(set, f)
		}
	}
	return set, add
}

// fieldAllowed leaves out what no server may set: pseudo-header fields, what
// belongs to a connection, and what cannot stand in a field.
func fieldAllowed(f *message.Field) bool {
	switch f.ID {
	case message.Host, message.Connection, message.ContentLength, message.KeepAlive, message.ProxyConnection, message.TE,
		message.Trailer, message.TransferEncoding, message.Upgrade:
		return false
	}
	if len(f.Name) == 0 || f.Name[0] == ':' {
		return false
	}
	for _, b := range f.Name {
		if b <= ' ' || b >= 0x7f || b == ':' {
			return false
		}
	}
	for _, b := range f.Value {
		if b < ' ' && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}
