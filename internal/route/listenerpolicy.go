package route

import (
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairwaynet/fairway/api/v1alpha1"
	"github.com/fairwaynet/fairway/internal/model"
)

// duration reads an optional duration that is not 0.
func (f *fields) duration(name string, to *time.Duration, v *gatewayv1.Duration) {
	if v == nil {
		return
	}
	d, err := parseDuration(*v)
	if err != nil {
		f.fail(name, "%v", err)
	} else if d == 0 {
		f.fail(name, "it cannot be 0")
	}
	*to = d
}

// attachListenerPolicy gives a listener the policies that hold for it.
func (r *reader) attachListenerPolicy(l *listener) {
	for _, p := range holders[*v1alpha1.FairwayListenerPolicy](r, KindListenerPolicy, l.source.ref, l.id.Name) {
		// A holder has been read without an error.
		_ = listenerPolicy(&l.policy, &p.Spec)
	}
}

// listenerPolicy lays the fields that are set over those of p.
func listenerPolicy(p *model.ListenerPolicy, in *v1alpha1.FairwayListenerPolicySpec) error {
	var f fields
	if in.ProxyProtocol != nil {
		p.AcceptProxyProtocol = *in.ProxyProtocol
	}
	if in.TrustedProxies != nil {
		var err error
		if p.TrustedProxies, err = prefixes("spec.trustedProxies", in.TrustedProxies); err != nil {
			return err
		}
	}
	if in.HTTP2 != nil {
		p.DisableHTTP2 = !*in.HTTP2
	}
	if in.HTTP3 != nil {
		p.EnableHTTP3 = *in.HTTP3
	}
	if l := in.Limits; l != nil {
		f.integer("spec.limits.maxConnections", &p.MaxConnections, l.MaxConnections, 0)
		f.integer("spec.limits.maxConnectionsPerClient", &p.MaxConnectionsPerClient, l.MaxConnectionsPerClient, 0)
		f.integer("spec.limits.maxHeaders", &p.MaxHeaders, l.MaxHeaders, 10000)
		f.integer("spec.limits.maxRequestsPerConnection", &p.MaxRequestsPerConn, l.MaxRequestsPerConnection, 0)
		streams := int(p.MaxConcurrentStreams)
		f.integer("spec.limits.maxConcurrentStreams", &streams, l.MaxConcurrentStreams, 10000)
		p.MaxConcurrentStreams = uint32(streams)
		if n, ok := f.size("spec.limits.maxHeaderSize", l.MaxHeaderSize); ok {
			if n > 16<<20 {
				f.fail("spec.limits.maxHeaderSize", "%s is more than 16Mi", l.MaxHeaderSize)
			}
			p.MaxHeaderBytes = int(n)
		}
	}
	if t := in.Timeouts; t != nil {
		f.duration("spec.timeouts.handshake", &p.HandshakeTimeout, t.Handshake)
		f.duration("spec.timeouts.header", &p.HeaderTimeout, t.Header)
		f.duration("spec.timeouts.bodyIdle", &p.BodyIdleTimeout, t.BodyIdle)
		f.duration("spec.timeouts.writeIdle", &p.WriteIdleTimeout, t.WriteIdle)
		f.duration("spec.timeouts.keepAlive", &p.KeepAliveTimeout, t.KeepAlive)
		f.duration("spec.timeouts.tcpIdle", &p.TCPIdleTimeout, t.TCPIdle)
		f.duration("spec.timeouts.udpIdle", &p.UDPIdleTimeout, t.UDPIdle)
		f.duration("spec.timeouts.drain", &p.DrainTimeout, t.Drain)
	}
	if a := in.AccessLog; a != nil {
		p.AccessLog.OnlyErrors = a.OnlyErrors
		switch a.Format {
		case v1alpha1.AccessLogNone:
			p.AccessLog.Format = model.NoAccessLog
		case v1alpha1.AccessLogText:
			p.AccessLog.Format = model.AccessLogText
		case v1alpha1.AccessLogJSON:
			p.AccessLog.Format = model.AccessLogJSON
		default:
			f.fail("spec.accessLog.format", "%q is not known", a.Format)
		}
	}
	return f.err
}
