package conntrack

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// timeouts are the default timeouts that kube-proxy's configuration has, by the
// name of their sysctl. The attributes are those of
// linux/netfilter/nfnetlink_cttimeout.h.
var timeouts = map[string]struct {
	protocol  uint8
	attribute int
}{
	"nf_conntrack_tcp_timeout_established": {unix.IPPROTO_TCP, 3},
	"nf_conntrack_tcp_timeout_close_wait":  {unix.IPPROTO_TCP, 5},
	"nf_conntrack_udp_timeout":             {unix.IPPROTO_UDP, 1},
	"nf_conntrack_udp_timeout_stream":      {unix.IPPROTO_UDP, 2},
}

const (
	msgDefaultSet = 3 // IPCTNL_MSG_TIMEOUT_DEFAULT_SET
	attrL3Proto   = 2 // CTA_TIMEOUT_L3PROTO
	attrL4Proto   = 3 // CTA_TIMEOUT_L4PROTO
	attrData      = 4 // CTA_TIMEOUT_DATA
)

// SetTimeout sets a default timeout of the caller's network namespace, in whole
// seconds: the value that the sysctl of that name shows. Other than writing the
// sysctl's file, it needs CAP_NET_ADMIN alone and no writable /proc. The kernel
// must have CONFIG_NF_CONNTRACK_TIMEOUT.
func SetTimeout(sysctl string, d time.Duration) error {
	t, ok := timeouts[sysctl]
	if !ok {
		return fmt.Errorf("%s cannot be set by netlink", sysctl)
	}
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK_TIMEOUT<<8|msgDefaultSet, unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	// The timeouts are those of both families, but the kernel wants one named.
	req.AddData(nl.NewRtAttr(attrL3Proto, nl.BEUint16Attr(unix.AF_INET)))
	req.AddData(nl.NewRtAttr(attrL4Proto, nl.Uint8Attr(t.protocol)))
	data := nl.NewRtAttr(unix.NLA_F_NESTED|attrData, nil)
	data.AddRtAttr(unix.NLA_F_NET_BYTEORDER|t.attribute, nl.BEUint32Attr(uint32(d/time.Second)))
	req.AddData(data)
	if _, err := req.Execute(unix.NETLINK_NETFILTER, 0); err != nil {
		return fmt.Errorf("set %s by netlink: %w", sysctl, err)
	}
	return nil
}
