package kubeproxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ipvsDevice carries the address of every Service in IPVS mode.
const ipvsDevice = "kube-ipvs0"

// setPrefix begins the names of kube-proxy's IP sets.
const setPrefix = "KUBE-"

// nodePortSets hold the NodePorts that IPVS serves: virtual servers at other
// addresses than Services' are kube-proxy's if their port is in one of them.
var nodePortSets = map[string]uint8{
	"KUBE-NODE-PORT-TCP": unix.IPPROTO_TCP, "KUBE-6-NODE-PORT-TCP": unix.IPPROTO_TCP,
	"KUBE-NODE-PORT-UDP": unix.IPPROTO_UDP, "KUBE-6-NODE-PORT-UDP": unix.IPPROTO_UDP,
	"KUBE-NODE-PORT-SCTP-HASH": unix.IPPROTO_SCTP, "KUBE-6-NODE-PORT-SCTP-HASH": unix.IPPROTO_SCTP,
}

// cleanIPVS removes what IPVS mode made. Virtual servers are kube-proxy's if
// their address is on its interface, or their port is one of its NodePorts;
// others (keepalived's, for example) stay.
func cleanIPVS(r *Report) error {
	var errs []error
	sets, err := netlink.IpsetListAll()
	if err != nil && !absent(err) {
		errs = append(errs, fmt.Errorf("list IP sets: %w", err))
	}
	link, err := netlink.LinkByName(ipvsDevice)
	var gone netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &gone) {
		return errors.Join(append(errs, err)...)
	}
	vips := map[netip.Addr]bool{}
	if link != nil {
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP); ok {
				vips[ip.Unmap()] = true
			}
		}
	}
	errs = append(errs, cleanServers(r, vips, nodePorts(sets)))
	if link != nil {
		if err := netlink.LinkDel(link); err != nil {
			errs = append(errs, fmt.Errorf("interface %s: %w", ipvsDevice, err))
		} else {
			r.removed("interface %s with %d addresses", ipvsDevice, len(vips))
		}
	}
	for _, s := range sets {
		if !strings.HasPrefix(s.SetName, setPrefix) {
			continue
		}
		if err := netlink.IpsetDestroy(s.SetName); err != nil {
			errs = append(errs, fmt.Errorf("IP set %s: %w", s.SetName, err))
		} else {
			r.removed("IP set %s", s.SetName)
		}
	}
	return errors.Join(errs...)
}

// absent tells whether an error means that the kernel has no such thing, so
// that nothing of it can be left.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT)
}

// protoPort is a port of a protocol.
type protoPort struct {
	proto uint8
	port  uint16
}

func nodePorts(sets []netlink.IPSetResult) map[protoPort]bool {
	out := map[protoPort]bool{}
	for _, s := range sets {
		proto, ok := nodePortSets[s.SetName]
		if !ok {
			continue
		}
		for _, e := range s.Entries {
			if e.Port != nil {
				out[protoPort{proto, *e.Port}] = true
			}
		}
	}
	return out
}

// Of include/uapi/linux/ip_vs.h.
const (
	ipvsFamily        = "IPVS"
	ipvsVersion       = 1
	ipvsCmdDelService = 3
	ipvsCmdGetService = 4
	ipvsAttrService   = 1 // IPVS_CMD_ATTR_SERVICE

	ipvsSvcAF       = 1
	ipvsSvcProtocol = 2
	ipvsSvcAddr     = 3
	ipvsSvcPort     = 4
	ipvsSvcFwmark   = 5
)

// server is an IPVS virtual server. One of a firewall mark has no address.
type server struct {
	af     uint16
	proto  uint8
	addr   netip.Addr
	port   uint16
	fwmark uint32
}

func (s server) String() string {
	return fmt.Sprintf("%d/%s", s.proto, netip.AddrPortFrom(s.addr, s.port))
}

// cleanServers deletes kube-proxy's virtual servers.
func cleanServers(r *Report, vips map[netip.Addr]bool, ports map[protoPort]bool) error {
	if len(vips) == 0 && len(ports) == 0 {
		return nil // asking would load the module
	}
	family, err := netlink.GenlFamilyGet(ipvsFamily)
	if err != nil {
		if absent(err) {
			return nil
		}
		return err
	}
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_DUMP)
	req.AddData(&nl.Genlmsg{Command: ipvsCmdGetService, Version: ipvsVersion})
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return fmt.Errorf("list virtual servers: %w", err)
	}
	var errs []error
	n := 0
	for _, m := range msgs {
		s, err := parseServer(m)
		if err != nil {
			return err
		}
		if !ownServer(s, vips, ports) {
			continue
		}
		req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
		req.AddData(&nl.Genlmsg{Command: ipvsCmdDelService, Version: ipvsVersion})
		req.AddData(s.attributes())
		if _, err := req.Execute(unix.NETLINK_GENERIC, 0); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("virtual server %s: %w", s, err))
			continue
		}
		n++
	}
	if n > 0 {
		r.removed("%d IPVS virtual servers", n)
	}
	return errors.Join(errs...)
}

func ownServer(s server, vips map[netip.Addr]bool, ports map[protoPort]bool) bool {
	return s.addr.IsValid() && (vips[s.addr] || ports[protoPort{s.proto, s.port}])
}

// parseServer reads an answer to IPVS_CMD_GET_SERVICE.
func parseServer(m []byte) (server, error) {
	var s server
	attrs, err := nl.ParseRouteAttr(m[nl.SizeofGenlmsg:])
	if err != nil {
		return s, err
	}
	i := slices.IndexFunc(attrs, func(a syscall.NetlinkRouteAttr) bool { return a.Attr.Type&nl.NLA_TYPE_MASK == ipvsAttrService })
	if i < 0 {
		return s, errors.New("an IPVS message without a service")
	}
	if attrs, err = nl.ParseRouteAttr(attrs[i].Value); err != nil {
		return s, err
	}
	var addr []byte
	for _, a := range attrs {
		switch v := a.Value; a.Attr.Type & nl.NLA_TYPE_MASK {
		case ipvsSvcAF:
			s.af = binary.NativeEndian.Uint16(v)
		case ipvsSvcProtocol:
			s.proto = uint8(binary.NativeEndian.Uint16(v))
		case ipvsSvcAddr:
			addr = v
		case ipvsSvcPort:
			s.port = binary.BigEndian.Uint16(v)
		case ipvsSvcFwmark:
			s.fwmark = binary.NativeEndian.Uint32(v)
		}
	}
	if s.fwmark == 0 && len(addr) >= 16 {
		if s.af == unix.AF_INET {
			s.addr = netip.AddrFrom4([4]byte(addr[:4]))
		} else {
			s.addr = netip.AddrFrom16([16]byte(addr[:16]))
		}
	}
	return s, nil
}

// attributes names a server in a request.
func (s server) attributes() *nl.RtAttr {
	u16 := binary.NativeEndian.AppendUint16
	addr := make([]byte, 16) // union nf_inet_addr
	copy(addr, s.addr.AsSlice())
	svc := nl.NewRtAttr(ipvsAttrService|unix.NLA_F_NESTED, nil)
	svc.AddRtAttr(ipvsSvcAF, u16(nil, s.af))
	svc.AddRtAttr(ipvsSvcProtocol, u16(nil, uint16(s.proto)))
	svc.AddRtAttr(ipvsSvcAddr, addr)
	svc.AddRtAttr(ipvsSvcPort, binary.BigEndian.AppendUint16(nil, s.port))
	return svc
}
