package echo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	encodingproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// ServiceName is the gRPC service that answers with a Reply:
//
//	service Echo {
//	  rpc Echo(google.protobuf.Struct) returns (google.protobuf.Struct);
//	  rpc Stream(stream google.protobuf.Struct) returns (stream google.protobuf.Struct);
//	}
//
// Both answer each message with the Reply as a Struct, in which "message" is
// what was sent.
const ServiceName = "fairway.echo.v1.Echo"

// raw is a gRPC message nobody looked into.
type raw []byte

// codec carries protobuf messages and raw ones.
type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*raw); ok {
		return mem.BufferSlice{mem.SliceBuffer(*r)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*raw); ok {
		*r = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// newGRPC makes the gRPC server of all ports. It is made at the first gRPC
// request only, since most pods never get one.
func (s *Server) newGRPC() *grpc.Server {
	g := grpc.NewServer(
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(encodingproto.Name)}),
		grpc.UnknownServiceHandler(s.echoStream),
		grpc.StreamInterceptor(s.announceStream),
		grpc.UnaryInterceptor(s.announceUnary),
	)
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: ServiceName,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Echo", Handler: s.unaryStruct}},
		Streams:     []grpc.StreamDesc{{StreamName: "Stream", Handler: s.streamStruct, ServerStreams: true, ClientStreams: true}},
		Metadata:    "fairway/echo/v1/echo.proto",
	}, s)
	h := health.NewServer()
	h.SetServingStatus(ServiceName, healthv1.HealthCheckResponse_SERVING)
	healthv1.RegisterHealthServer(g, h)
	grpc_reflection_v1.RegisterServerReflectionServer(g, reflection.NewServerV1(reflection.ServerOptions{
		Services:           g,
		DescriptorResolver: resolver{},
	}))
	return g
}

// echoStream sends the messages of any unknown method back.
func (s *Server) echoStream(_ any, st grpc.ServerStream) error {
	for {
		var m raw
		switch err := st.RecvMsg(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := st.SendMsg(&m); err != nil {
			return err
		}
	}
}

// announceStream sends who answers before the call, and ends it where the
// client asked for a status.
func (s *Server) announceStream(srv any, st grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	if err := st.SetHeader(s.identity()); err != nil {
		return err
	}
	if err := wantedStatus(st.Context()); err != nil {
		return err
	}
	return h(srv, st)
}

// announceUnary does the same for unary calls.
func (s *Server) announceUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	if err := grpc.SetHeader(ctx, s.identity()); err != nil {
		return nil, err
	}
	if err := wantedStatus(ctx); err != nil {
		return nil, err
	}
	return h(ctx, req)
}

func (s *Server) identity() metadata.MD {
	return metadata.Pairs("fairway-pod", s.o.Pod, "fairway-namespace", s.o.Namespace, "fairway-node", s.o.Node)
}

// wantedStatus is the error that the metadata "echo-status" asks for.
func wantedStatus(ctx context.Context) error {
	v := metadata.ValueFromIncomingContext(ctx, "echo-status")
	if len(v) == 0 {
		return nil
	}
	n, err := strconv.ParseUint(v[0], 10, 32)
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "echo-status: %q is no number", v[0])
	}
	return status.Error(codes.Code(n), "as asked for by echo-status") // nil for OK
}

func (s *Server) unaryStruct(_ any, ctx context.Context, dec func(any) error, ic grpc.UnaryServerInterceptor) (any, error) {
	in := new(structpb.Struct)
	if err := dec(in); err != nil {
		return nil, err
	}
	const method = "/" + ServiceName + "/Echo"
	return ic(ctx, in, &grpc.UnaryServerInfo{Server: s, FullMethod: method}, func(ctx context.Context, in any) (any, error) {
		return s.structReply(ctx, method, in.(*structpb.Struct))
	})
}

func (s *Server) streamStruct(_ any, st grpc.ServerStream) error {
	for {
		in := new(structpb.Struct)
		switch err := st.RecvMsg(in); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		out, err := s.structReply(st.Context(), "/"+ServiceName+"/Stream", in)
		if err != nil {
			return err
		}
		if err := st.SendMsg(out); err != nil {
			return err
		}
	}
}

// structReply is the Reply of one message.
func (s *Server) structReply(ctx context.Context, method string, in *structpb.Struct) (*structpb.Struct, error) {
	port, _ := ctx.Value(portKey{}).(Port)
	local, _ := ctx.Value(http.LocalAddrContextKey).(net.Addr)
	rep := s.reply(port, "gRPC", local, nil)
	if p, ok := peer.FromContext(ctx); ok {
		rep.RemoteAddr = p.Addr.String()
	}
	rep.Path = method
	md, _ := metadata.FromIncomingContext(ctx)
	rep.Headers = http.Header(md.Copy())
	if a := md.Get(":authority"); len(a) > 0 {
		rep.Host = a[0]
	}
	b, err := json.Marshal(rep)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	out := new(structpb.Struct)
	if err := out.UnmarshalJSON(b); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	out.Fields["message"] = structpb.NewStructValue(in)
	return out, nil
}

// echoFile is the descriptor of ServiceName, which no .proto file was
// compiled for: its messages are well-known types.
var echoFile = sync.OnceValues(func() (protoreflect.FileDescriptor, error) {
	str := proto.String
	method := func(name string, stream bool) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{
			Name: str(name), InputType: str(".google.protobuf.Struct"), OutputType: str(".google.protobuf.Struct"),
			ClientStreaming: proto.Bool(stream), ServerStreaming: proto.Bool(stream),
		}
	}
	return protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: str("fairway/echo/v1/echo.proto"), Package: str("fairway.echo.v1"), Syntax: str("proto3"),
		Dependency: []string{"google/protobuf/struct.proto"},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: str("Echo"), Method: []*descriptorpb.MethodDescriptorProto{method("Echo", false), method("Stream", true)},
		}},
	}, protoregistry.GlobalFiles)
})

// resolver finds descriptors for reflection: ours, and those compiled in.
type resolver struct{}

func (resolver) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if f, err := echoFile(); err == nil && f.Path() == path {
		return f, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

func (resolver) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	f, err := echoFile()
	if err != nil {
		return nil, fmt.Errorf("descriptor of %s: %w", ServiceName, err)
	}
	svc := f.Services().Get(0)
	if svc.FullName() == name {
		return svc, nil
	}
	if name.Parent() == svc.FullName() {
		if m := svc.Methods().ByName(name.Name()); m != nil {
			return m, nil
		}
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}
