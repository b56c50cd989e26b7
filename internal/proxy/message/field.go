package message

// FieldID is a small number for the name of a field that the proxy acts on, so
// that nothing but the parser compares names.
type FieldID uint8

// The names. Other is every name that is not here.
const (
	Other FieldID = iota
	AcceptEncoding
	Authorization
	Connection
	ContentEncoding
	ContentLength
	ContentType
	Cookie
	Date
	Expect
	Forwarded
	GRPCTimeout
	Host
	KeepAlive
	Origin
	ProxyConnection
	Server
	SetCookie
	TE
	Trailer
	TransferEncoding
	Upgrade
	UserAgent
	Vary
	Via
	XForwardedFor
	XForwardedHost
	XForwardedProto
	XRequestID
	numFields
)

var names = [numFields]string{
	AcceptEncoding: "accept-encoding", Authorization: "authorization", Connection: "connection",
	ContentEncoding: "content-encoding", ContentLength: "content-length", ContentType: "content-type",
	Cookie: "cookie", Date: "date", Expect: "expect", Forwarded: "forwarded", GRPCTimeout: "grpc-timeout",
	Host: "host", KeepAlive: "keep-alive", Origin: "origin", ProxyConnection: "proxy-connection",
	Server: "server", SetCookie: "set-cookie", TE: "te", Trailer: "trailer", TransferEncoding: "transfer-encoding",
	Upgrade: "upgrade", UserAgent: "user-agent", Vary: "vary", Via: "via", XForwardedFor: "x-forwarded-for",
	XForwardedHost: "x-forwarded-host", XForwardedProto: "x-forwarded-proto", XRequestID: "x-request-id",
}

// byLength holds, for each length, the names of that length.
var byLength = func() (t [20][]FieldID) {
	for id := Other + 1; id < numFields; id++ {
		n := len(names[id])
		t[n] = append(t[n], id)
	}
	return t
}()

// String returns the name, and "" for Other.
func (id FieldID) String() string { return names[id] }

// Lookup returns the ID of a name in lower case.
func Lookup(name []byte) FieldID {
	if len(name) < len(byLength) {
		for _, id := range byLength[len(name)] {
			if string(name) == names[id] {
				return id
			}
		}
	}
	return Other
}
