package proxy

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"time"

	"github.com/fairwaynet/fairway/internal/model"
	"github.com/fairwaynet/fairway/internal/proxy/l4"
	"github.com/fairwaynet/fairway/internal/proxy/message"
)

const (
	nameWebSocketKey    = "sec-websocket-key"
	nameWebSocketAccept = "sec-websocket-accept"
	webSocketGUID       = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

var methodGet = []byte("GET")

// bridgeUpgrade makes of an extended CONNECT (RFC 8441) the request that HTTP/1.1
// upgrades with, unless the upstream speaks HTTP/2 too.
func (x *exchange) bridgeUpgrade() {
	if x.conn.Protocol == "HTTP/1.1" || x.view.Spec().Protocol == model.UpstreamH2C {
		return
	}
	x.req.Method = methodGet
	if string(x.req.Upgrade) != "websocket" {
		return
	}
	var nonce [16]byte
	rand.Read(nonce[:])
	x.req.Fields = append(message.Remove(x.req.Fields, nameWebSocketKey),
		message.Field{Name: []byte(nameWebSocketKey), Value: base64.StdEncoding.AppendEncode(nil, nonce[:])})
}

// bridgeAnswer says that the protocol changes as the client's HTTP says it.
func (x *exchange) bridgeAnswer() {
	x.res.Length = message.UnknownLength
	if x.conn.Protocol != "HTTP/1.1" {
		x.res.Status = 200
		x.res.Fields = message.Remove(x.res.Fields, nameWebSocketAccept)
		return
	}
	if x.res.Status == 101 {
		return
	}
	x.res.Status = 101
	if key, ok := message.GetName(x.req.Fields, nameWebSocketKey); ok {
		sum := sha1.Sum(append(key[:len(key):len(key)], webSocketGUID...)) // RFC 6455 4.2.2
		x.res.Fields = append(message.Remove(x.res.Fields, nameWebSocketAccept),
			message.Field{Name: []byte(nameWebSocketAccept), Value: base64.StdEncoding.AppendEncode(nil, sum[:])})
	}
}

// tunnel carries bytes both ways after the upstream agreed to an upgrade. It
// returns when both directions have ended, or have been idle for too long.
func (x *exchange) tunnel() {
	x.awaited()
	x.filterResponse(&x.res)
	x.bridgeAnswer()
	x.call.SetDeadline(time.Time{})
	back, err := x.call.Hijack()
	if err != nil {
		x.fail(502, "upgrade failed")
		x.release(true)
		return
	}
	defer func() {
		back.Close()
		x.release(false)
	}()
	x.headSent = true
	err = x.s.WriteHead(&x.res, false)
	if err == nil {
		err = x.s.Flush()
	}
	if err != nil {
		x.gone.Store(true)
		return
	}
	front, err := x.s.Hijack()
	if err != nil {
		x.gone.Store(true)
		return
	}
	if c, ok := x.conn.Listener.(*connection); ok && x.conn.Protocol == "HTTP/1.1" {
		c.tunnel()
	}
	_, x.sent, _ = l4.Pipe(x.engine.ctx, front, back, x.listener.policy.TCPIdleTimeout, &x.engine.upgraded)
}
