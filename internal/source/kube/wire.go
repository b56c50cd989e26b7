package kube

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The API server's protobuf: a watch is a stream of frames, each a 4 byte
// big-endian length and a metav1.WatchEvent. The object in it, like the body of
// a list, is "k8s\0" and a runtime.Unknown that has the object's own encoding.
//
// It is read here, and not by client-go's decoders, because those copy each
// object twice, and decode managedFields, which is often the largest part of an
// object, only to have it thrown away.

// maxFrame is more than the largest object an API server stores (etcd's limit is
// 1.5 MiB) and less than what a wrong length could ask for.
const maxFrame = 64 << 20

var errNotProtobuf = errors.New("the answer is not Kubernetes protobuf")

// frames reads the frames of a watch. What next returns is valid until the next
// call.
type frames struct {
	r   *bufio.Reader
	buf []byte
}

func newFrames(r io.Reader) *frames {
	return &frames{r: bufio.NewReaderSize(r, 64<<10)}
}

// next returns a frame. It returns io.EOF where the stream ended between frames.
func (f *frames) next() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n > maxFrame {
		return nil, fmt.Errorf("%w: a frame of %d bytes", errNotProtobuf, n)
	}
	if n > cap(f.buf) {
		f.buf = make([]byte, n, n+n/4)
	}
	f.buf = f.buf[:n]
	if _, err := io.ReadFull(f.r, f.buf); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return f.buf, nil
}

// ready reports whether the next frame can be read without waiting.
func (f *frames) ready() bool {
	if f.r.Buffered() < 4 {
		return false
	}
	head, err := f.r.Peek(4)
	return err == nil && f.r.Buffered() >= 4+int(binary.BigEndian.Uint32(head))
}

// eachField calls f for each field of a protobuf message: with the contents of the
// field if it is a message, a string or bytes, and with all of it, tag and
// length included.
func eachField(msg []byte, f func(num protowire.Number, content, whole []byte) error) error {
	for len(msg) > 0 {
		num, typ, tag := protowire.ConsumeTag(msg)
		if tag < 0 {
			return errNotProtobuf
		}
		var content []byte
		size := 0
		if typ == protowire.BytesType {
			content, size = protowire.ConsumeBytes(msg[tag:])
		} else {
			size = protowire.ConsumeFieldValue(num, typ, msg[tag:])
		}
		if size < 0 {
			return errNotProtobuf
		}
		if err := f(num, content, msg[:tag+size]); err != nil {
			return err
		}
		msg = msg[tag+size:]
	}
	return nil
}

// field returns the contents of the last field of that number: protobuf lets
// the last one win.
func field(msg []byte, want protowire.Number) (out []byte, err error) {
	err = eachField(msg, func(num protowire.Number, content, _ []byte) error {
		if num == want {
			out = content
		}
		return nil
	})
	return out, err
}

// Field numbers of metav1.WatchEvent, runtime.RawExtension, runtime.Unknown,
// runtime.TypeMeta, and of every list kind.
const (
	eventType    = 1
	eventObject  = 2
	extensionRaw = 1
	unknownType  = 1
	unknownRaw   = 2
	typeMetaKind = 2
	listMeta     = 1
	listItems    = 2
)

// decodeEvent takes a frame of a watch apart. kind is that of the object:
// "Status" in an event of the type ERROR.
func decodeEvent(frame []byte) (typ, kind string, raw []byte, err error) {
	var object []byte
	err = eachField(frame, func(num protowire.Number, content, _ []byte) error {
		switch num {
		case eventType:
			typ = string(content)
		case eventObject:
			object = content
		}
		return nil
	})
	if err != nil {
		return "", "", nil, err
	}
	if object, err = field(object, extensionRaw); err != nil {
		return "", "", nil, err
	}
	kind, raw, err = decodeUnknown(object)
	return typ, kind, raw, err
}

var magic = []byte("k8s\x00")

// decodeUnknown takes the envelope off an object.
func decodeUnknown(data []byte) (kind string, raw []byte, err error) {
	if len(data) < len(magic) || string(data[:len(magic)]) != string(magic) {
		return "", nil, errNotProtobuf
	}
	err = eachField(data[len(magic):], func(num protowire.Number, content, _ []byte) error {
		switch num {
		case unknownType:
			k, err := field(content, typeMetaKind)
			kind = string(k)
			return err
		case unknownRaw:
			raw = content
		}
		return nil
	})
	return kind, raw, err
}

// decodeList takes the body of a list apart.
func decodeList(data []byte, item func(raw []byte) error) (meta metav1.ListMeta, err error) {
	_, raw, err := decodeUnknown(data)
	if err != nil {
		return meta, err
	}
	err = eachField(raw, func(num protowire.Number, content, _ []byte) error {
		switch num {
		case listMeta:
			return meta.Unmarshal(content)
		case listItems:
			return item(content)
		}
		return nil
	})
	return meta, err
}

// Field numbers of objects, metav1.ObjectMeta and of map entries.
const (
	objectMeta        = 1
	metaAnnotations   = 12
	metaManagedFields = 17
	entryKey          = 1
)

// lastApplied is where "kubectl apply" keeps a copy of the manifest.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// slim appends to dst an object's encoding without managedFields and without
// the copy of the manifest that kubectl keeps.
func slim(dst, raw []byte) ([]byte, error) {
	err := eachField(raw, func(num protowire.Number, content, whole []byte) error {
		if num != objectMeta {
			dst = append(dst, whole...)
			return nil
		}
		drop := 0
		unwanted := func(num protowire.Number, content []byte) (bool, error) {
			switch num {
			case metaManagedFields:
				return true, nil
			case metaAnnotations:
				key, err := field(content, entryKey)
				return string(key) == lastApplied, err
			}
			return false, nil
		}
		if err := eachField(content, func(num protowire.Number, c, whole []byte) error {
			no, err := unwanted(num, c)
			if no {
				drop += len(whole)
			}
			return err
		}); err != nil {
			return err
		}
		dst = protowire.AppendTag(dst, num, protowire.BytesType)
		dst = protowire.AppendVarint(dst, uint64(len(content)-drop))
		return eachField(content, func(num protowire.Number, c, whole []byte) error {
			no, err := unwanted(num, c)
			if !no {
				dst = append(dst, whole...)
			}
			return err
		})
	})
	return dst, err
}
