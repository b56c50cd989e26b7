package dir

import (
	"strings"
	"testing"
)

// Manifests that the cases below are put into.
const (
	aService = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n"
	aPod     = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n"
	aSlice   = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1}\n"
	aNode    = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n"
	template = "  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}\n"
	selector = "  selector: {matchLabels: {app: web}}\n"
)

func deployment(spec string) string {
	return "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n" + spec
}

// TestValidation has what an API server would refuse, and what a user is told.
// Each text is what comes after "f.yaml:"; a case without any is good.
func TestValidation(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want []string
	}{
		// Names.
		{"apiVersion: v1\nkind: Service\nmetadata: {}\nspec: {ports: [{port: 80}]}\n", []string{"3: Service: metadata.name: is required"}},
		{"apiVersion: v1\nkind: Service\nmetadata: {generateName: a-}\nspec: {ports: [{port: 80}]}\n",
			[]string{"3: Service: metadata.name: is required: files are read again and again, and generateName would give another name each time"}},
		{"apiVersion: v1\nkind: Service\nspec: {ports: [{port: 80}]}\n", []string{"1: Service: metadata.name: is required"}},
		{"apiVersion: v1\nkind: Service\nmetadata: {name: Web_1}\nspec: {ports: [{port: 80}]}\n", []string{`3: Service default/Web_1: metadata.name: "Web_1" is not ` + ruleLabel}},
		{"apiVersion: v1\nkind: Service\nmetadata: {name: a.b}\nspec: {ports: [{port: 80}]}\n", []string{`3: Service default/a.b: metadata.name: "a.b" is not ` + ruleLabel}},
		{"apiVersion: v1\nkind: Service\nmetadata: {name: 1a}\nspec: {ports: [{port: 80}]}\n", nil}, // since Kubernetes 1.36
		{"apiVersion: v1\nkind: Node\nmetadata: {name: a.b}\n", nil},
		{"apiVersion: v1\nkind: Node\nmetadata: {name: a, namespace: b}\n", []string{"3: Node a: metadata.namespace: must not be set: a Node is in no namespace"}},
		{"apiVersion: v1\nkind: Namespace\nmetadata: {name: a.b}\n", []string{`3: Namespace a.b: metadata.name: "a.b" is not ` + ruleLabel}},
		{"apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: Nope}\nspec: {ports: [{port: 80}]}\n", []string{`3: Service Nope/web: metadata.namespace: "Nope" is not ` + ruleLabel}},
		{"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels:\n    ok: \"\"\n    bad key: x\n    app: \"not good\"\n  annotations:\n    a b: x\n", []string{
			`7: Namespace a: metadata.labels[bad key]: "bad key" is not ` + ruleLabelKey,
			`8: Namespace a: metadata.labels[app]: "not good" is not ` + ruleLabelValue,
			`10: Namespace a: metadata.annotations[a b]: "a b" is not an annotation key: ` + strings.TrimPrefix(ruleLabelKey, "a label key: "),
		}},
		{"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  annotations: {big: \"" + strings.Repeat("x", maxAnnotations) + "\"}\n",
			[]string{"5: Namespace a: metadata.annotations: all annotations together must be at most 262144 bytes, are 262147"}},

		// Service: ports.
		{"apiVersion: v1\nkind: Service\nmetadata: {name: web}\n", []string{"1: Service default/web: spec: is required"}},
		{aService + "  selector: {a: b}\n", []string{"4: Service default/web: spec.ports: is required"}},
		{aService + "  ports:\n  - name: x\n", []string{"6: Service default/web: spec.ports[0].port: is required"}},
		{aService + "  ports:\n  - port: 65536\n  - port: -1\n    name: b\n", []string{
			"6: Service default/web: spec.ports[0].name: is required where a Service has more than one port",
			"6: Service default/web: spec.ports[0].port: must be between 1 and 65535, is 65536",
			"7: Service default/web: spec.ports[1].port: must be between 1 and 65535, is -1",
		}},
		{aService + "  ports:\n  - {name: a, port: 80}\n  - {name: a, port: 81}\n", []string{`7: Service default/web: spec.ports[1].name: "a" is also the name of ports[0]`}},
		{aService + "  ports:\n  - {name: a, port: 80}\n  - {name: b, port: 80, protocol: TCP}\n  - {name: c, port: 80, protocol: UDP}\n",
			[]string{"7: Service default/web: spec.ports[1].port: TCP port 80 is also that of ports[0]"}},
		{aService + "  ports: [{port: 80, name: Http_1}]\n", []string{`5: Service default/web: spec.ports[0].name: "Http_1" is not ` + ruleLabel}},
		{aService + "  ports: [{port: 80, protocol: tcp}]\n", []string{`5: Service default/web: spec.ports[0].protocol: must be one of TCP, UDP, SCTP; is "tcp"; did you mean TCP?`}},
		{aService + "  ports: [{port: 80, protocol: ICMP}]\n", []string{`5: Service default/web: spec.ports[0].protocol: must be one of TCP, UDP, SCTP; is "ICMP"`}},
		{aService + "  ports: [{port: 80, targetPort: 70000}]\n", []string{"5: Service default/web: spec.ports[0].targetPort: must be between 1 and 65535, is 70000"}},
		{aService + "  ports: [{port: 80, targetPort: \"8080\"}]\n", []string{`5: Service default/web: spec.ports[0].targetPort: "8080" is not ` + rulePortName}},
		{aService + "  ports: [{port: 80, appProtocol: \"a b\"}]\n", []string{`5: Service default/web: spec.ports[0].appProtocol: "a b" is not a protocol name such as http or example.com/my-protocol`}},
		{aService + "  ports: [{port: 80, nodePort: 30000}]\n", []string{"5: Service default/web: spec.ports[0].nodePort: may be set only where the type is NodePort or LoadBalancer"}},
		{aService + "  type: NodePort\n  ports:\n  - {name: a, port: 80, nodePort: 30000}\n  - {name: b, port: 81, nodePort: 30000}\n  - {name: c, port: 81, nodePort: 30000, protocol: UDP}\n  - {name: d, port: 82, nodePort: 99999}\n", []string{
			"8: Service default/web: spec.ports[1].nodePort: TCP node port 30000 is also that of ports[0]",
			"10: Service default/web: spec.ports[3].nodePort: must be between 1 and 65535, is 99999",
		}},
		// Service: type, selector, addresses.
		{aService + "  type: Clusterip\n  ports: [{port: 80}]\n", []string{`5: Service default/web: spec.type: must be one of ClusterIP, NodePort, LoadBalancer, ExternalName; is "Clusterip"; did you mean ClusterIP?`}},
		{aService + "  selector:\n    app: a b\n  ports: [{port: 80}]\n", []string{`6: Service default/web: spec.selector[app]: "a b" is not ` + ruleLabelValue}},
		{aService + "  clusterIP: 10.0.0\n  ports: [{port: 80}]\n", []string{`5: Service default/web: spec.clusterIP: "10.0.0" is not an IP address`}},
		{aService + "  clusterIP: 010.0.0.1\n  ports: [{port: 80}]\n", []string{`5: Service default/web: spec.clusterIP: "010.0.0.1" is not an IP address`}},
		{aService + "  clusterIP: \"::ffff:10.0.0.1\"\n  ports: [{port: 80}]\n", []string{`5: Service default/web: spec.clusterIP: "::ffff:10.0.0.1" must not be an IPv4-mapped IPv6 address; write 10.0.0.1`}},
		{aService + "  clusterIP: None\n  type: NodePort\n  ports: [{port: 80}]\n", []string{"5: Service default/web: spec.clusterIP: must not be None where the type is NodePort"}},
		{aService + "  clusterIP: 10.0.0.1\n  clusterIPs: [10.0.0.2]\n  ports: [{port: 80}]\n", []string{`6: Service default/web: spec.clusterIPs[0]: must be the same as clusterIP, "10.0.0.1"; is "10.0.0.2"`}},
		{aService + "  clusterIPs:\n  - 10.0.0.1\n  - 10.0.0.2\n  ports: [{port: 80}]\n", []string{"7: Service default/web: spec.clusterIPs[1]: the two addresses must be one IPv4 and one IPv6"}},
		{aService + "  clusterIPs: [10.0.0.1, \"fd00::1\", 10.0.0.2]\n  ports: [{port: 80}]\n", []string{"5: Service default/web: spec.clusterIPs: must have at most 2 addresses, has 3"}},
		{aService + "  clusterIPs: [\"fd00::1\"]\n  ipFamilies: [IPv4]\n  ports: [{port: 80}]\n", []string{"5: Service default/web: spec.clusterIPs[0]: must be an IPv4 address, as ipFamilies[0] says; is fd00::1"}},
		{aService + "  ipFamilies: [IPv4, ipv6]\n  ports: [{port: 80}]\n", []string{`5: Service default/web: spec.ipFamilies[1]: must be one of IPv4, IPv6; is "ipv6"; did you mean IPv6?`}},
		{aService + "  ipFamilies: [IPv4, IPv4]\n  ports: [{port: 80}]\n", []string{"5: Service default/web: spec.ipFamilies[1]: IPv4 is there twice"}},
		{aService + "  ipFamilyPolicy: DualStack\n  ports: [{port: 80}]\n", []string{`5: Service default/web: spec.ipFamilyPolicy: must be one of SingleStack, PreferDualStack, RequireDualStack; is "DualStack"`}},
		{aService + "  ipFamilyPolicy: SingleStack\n  ipFamilies: [IPv4, IPv6]\n  ports: [{port: 80}]\n", []string{"5: Service default/web: spec.ipFamilyPolicy: must be PreferDualStack or RequireDualStack where there are two families"}},
		{aService + "  externalIPs: [192.0.2.1, 127.0.0.1, x]\n  ports: [{port: 80}]\n", []string{
			"5: Service default/web: spec.externalIPs[1]: 127.0.0.1 is a loopback address",
			`5: Service default/web: spec.externalIPs[2]: "x" is not an IP address`,
		}},
		{aService + "  type: ExternalName\n", []string{"4: Service default/web: spec.externalName: is required where the type is ExternalName"}},
		{aService + "  type: ExternalName\n  externalName: a_b\n  clusterIP: 10.0.0.1\n", []string{
			`6: Service default/web: spec.externalName: "a_b" is not ` + ruleSubdomain,
			"7: Service default/web: spec.clusterIP: must not be set where the type is ExternalName",
		}},
		// Service: affinity, policies, load balancers.
		{aService + "  sessionAffinity: clientIP\n  ports: [{port: 80}]\n", []string{`5: Service default/web: spec.sessionAffinity: must be one of None, ClientIP; is "clientIP"; did you mean ClientIP?`}},
		{aService + "  sessionAffinityConfig: {clientIP: {timeoutSeconds: 10}}\n  ports: [{port: 80}]\n", []string{"5: Service default/web: spec.sessionAffinityConfig: may be set only where sessionAffinity is ClientIP"}},
		{aService + "  sessionAffinity: ClientIP\n  sessionAffinityConfig:\n    clientIP:\n      timeoutSeconds: 86401\n  ports: [{port: 80}]\n", []string{"8: Service default/web: spec.sessionAffinityConfig.clientIP.timeoutSeconds: must be between 1 and 86400, is 86401"}},
		{aService + "  internalTrafficPolicy: local\n  ports: [{port: 80}]\n", []string{`5: Service default/web: spec.internalTrafficPolicy: must be one of Cluster, Local; is "local"; did you mean Local?`}},
		{aService + "  externalTrafficPolicy: Local\n  ports: [{port: 80}]\n", []string{"5: Service default/web: spec.externalTrafficPolicy: may be set only where the type is NodePort or LoadBalancer, or there are externalIPs"}},
		{aService + "  externalTrafficPolicy: Local\n  externalIPs: [192.0.2.1]\n  ports: [{port: 80}]\n", nil},
		{aService + "  type: LoadBalancer\n  healthCheckNodePort: 30000\n  ports: [{port: 80}]\n", []string{"6: Service default/web: spec.healthCheckNodePort: may be set only where the type is LoadBalancer and externalTrafficPolicy is Local"}},
		{aService + "  trafficDistribution: PreferLocal\n  ports: [{port: 80}]\n", []string{`5: Service default/web: spec.trafficDistribution: must be one of PreferClose, PreferSameZone, PreferSameNode; is "PreferLocal"`}},
		{aService + "  loadBalancerSourceRanges: [10.0.0.0/8]\n  ports: [{port: 80}]\n", []string{"5: Service default/web: spec.loadBalancerSourceRanges: may be set only where the type is LoadBalancer"}},
		{aService + "  type: LoadBalancer\n  loadBalancerSourceRanges:\n  - 10.0.0.0/8\n  - 10.0.0.1\n  - 10.0.0.1/8\n  ports: [{port: 80}]\n", []string{
			`8: Service default/web: spec.loadBalancerSourceRanges[1]: "10.0.0.1" is not a CIDR such as 10.0.0.0/24 or 2001:db8::/64`,
			`9: Service default/web: spec.loadBalancerSourceRanges[2]: "10.0.0.1/8" has bits set beyond its prefix; write 10.0.0.0/8`,
		}},
		{"apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations:\n    service.beta.kubernetes.io/load-balancer-source-ranges: 10.0.0.0/8, x\nspec: {type: LoadBalancer, ports: [{port: 80}]}\n",
			[]string{`6: Service default/web: metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]: "x" is not a CIDR such as 10.0.0.0/24 or 2001:db8::/64`}},
		{aService + "  ports: [{port: 80}]\nstatus: {loadBalancer: {ingress: [{ip: x, ipMode: vip}]}}\n", []string{
			`6: Service default/web: status.loadBalancer.ingress[0].ip: "x" is not an IP address`,
			`6: Service default/web: status.loadBalancer.ingress[0].ipMode: must be one of VIP, Proxy; is "vip"; did you mean VIP?`,
		}},

		// EndpointSlice.
		{aSlice + "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1], nodeName: n1, hostname: h}]\nports: [{port: 80}, {name: a, port: 81, protocol: UDP}]\n", nil},
		{aSlice + "endpoints: []\n", []string{"1: EndpointSlice default/web-1: addressType: is required"}},
		{aSlice + "addressType: ipv4\nendpoints: []\n", []string{`4: EndpointSlice default/web-1: addressType: must be one of IPv4, IPv6, FQDN; is "ipv4"; did you mean IPv4?`}},
		{aSlice + "addressType: IPv6\nendpoints:\n- addresses: [10.0.0.1]\n- addresses: [\"::1\"]\n- addresses: []\n- addresses: [x]\n  hostname: A\n  hints: {forZones: [{name: \"a b\"}]}\n", []string{
			"6: EndpointSlice default/web-1: endpoints[0].addresses[0]: must be an IPv6 address, as addressType says; is 10.0.0.1",
			"7: EndpointSlice default/web-1: endpoints[1].addresses[0]: ::1 is a loopback address",
			"8: EndpointSlice default/web-1: endpoints[2].addresses: at least one address is required",
			`9: EndpointSlice default/web-1: endpoints[3].addresses[0]: "x" is not an IP address`,
			`10: EndpointSlice default/web-1: endpoints[3].hostname: "A" is not ` + ruleLabel,
			`11: EndpointSlice default/web-1: endpoints[3].hints.forZones[0].name: "a b" is not ` + ruleLabelValue,
		}},
		{aSlice + "addressType: FQDN\nendpoints: [{addresses: [a.example.com, A_b]}]\n", []string{`5: EndpointSlice default/web-1: endpoints[0].addresses[1]: "A_b" is not ` + ruleSubdomain}},
		{aSlice + "addressType: IPv4\nendpoints: []\nports: [{port: 0}, {name: a, port: 1}, {name: a, port: 2, protocol: X}]\n", []string{
			"6: EndpointSlice default/web-1: ports[0].port: must be between 1 and 65535, is 0",
			`6: EndpointSlice default/web-1: ports[2].name: "a" is also the name of ports[1]`,
			`6: EndpointSlice default/web-1: ports[2].protocol: must be one of TCP, UDP, SCTP; is "X"`,
		}},

		// Node, ServiceCIDR.
		{aNode + "status:\n  addresses:\n  - {type: InternalIP, address: 10.0.0.1}\n  - {type: Hostname, address: n1}\n  - {type: InternalIP, address: n1}\n  - {type: Internal, address: 10.0.0.1}\n  - {address: 10.0.0.1}\n", []string{
			`8: Node n1: status.addresses[2].address: "n1" is not an IP address`,
			`9: Node n1: status.addresses[3].type: must be one of Hostname, InternalIP, ExternalIP, InternalDNS, ExternalDNS; is "Internal"`,
			"10: Node n1: status.addresses[4].type: is required",
		}},
		{aNode + "spec:\n  podCIDR: 10.0.0.0/24\n  podCIDRs: [10.0.1.0/24, x]\n  taints: [{key: a}]\n", []string{
			`6: Node n1: spec.podCIDRs[0]: must be the same as podCIDR, "10.0.0.0/24"; is "10.0.1.0/24"`,
			`6: Node n1: spec.podCIDRs[1]: "x" is not a CIDR such as 10.0.0.0/24 or 2001:db8::/64`,
			"7: Node n1: spec.taints[0].effect: is required",
		}},
		{"apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: a}\nspec: {cidrs: []}\n", []string{"4: ServiceCIDR a: spec.cidrs: at least one CIDR is required"}},
		{"apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: a}\nspec:\n  cidrs:\n  - 10.0.0.0/16\n  - 10.1.0.0/16\n", []string{"7: ServiceCIDR a: spec.cidrs[1]: the two CIDRs must be one IPv4 and one IPv6"}},

		// Pods.
		{aPod + "  containers: []\n", []string{"5: Pod default/p: spec.containers: at least one container is required"}},
		{aPod + "  containers:\n  - {image: i}\n  - {name: a}\n  - {name: a, image: i}\n  - {name: B, image: i}\n", []string{
			"6: Pod default/p: spec.containers[0].name: is required",
			"7: Pod default/p: spec.containers[1].image: is required",
			`8: Pod default/p: spec.containers[2].name: "a" is also the name of containers[1]`,
			`9: Pod default/p: spec.containers[3].name: "B" is not ` + ruleLabel,
		}},
		{aPod + "  containers:\n  - name: a\n    image: i\n    ports:\n    - {name: http, containerPort: 80}\n    - {name: http, containerPort: 81}\n    - {containerPort: 0}\n    - {name: a-name-that-is-too-long, containerPort: 82, protocol: udp}\n    - {hostPort: 80}\n", []string{
			`10: Pod default/p: spec.containers[0].ports[1].name: "http" is also the name of ports[0]`,
			"11: Pod default/p: spec.containers[0].ports[2].containerPort: must be between 1 and 65535, is 0",
			`12: Pod default/p: spec.containers[0].ports[3].name: "a-name-that-is-too-long" is not ` + rulePortName,
			`12: Pod default/p: spec.containers[0].ports[3].protocol: must be one of TCP, UDP, SCTP; is "udp"; did you mean UDP?`,
			"13: Pod default/p: spec.containers[0].ports[4].containerPort: is required",
		}},
		{aPod + "  containers:\n  - name: a\n    image: i\n    readinessProbe: {httpGet: {port: 0}, tcpSocket: {port: http}}\n    livenessProbe: {periodSeconds: 5}\n    startupProbe: {exec: {command: []}, periodSeconds: -1}\n", []string{
			"8: Pod default/p: spec.containers[0].readinessProbe: must have one of exec, httpGet, tcpSocket and grpc; has 2",
			"8: Pod default/p: spec.containers[0].readinessProbe.httpGet.port: must be between 1 and 65535, is 0",
			"9: Pod default/p: spec.containers[0].livenessProbe: must have one of exec, httpGet, tcpSocket and grpc; has 0",
			"10: Pod default/p: spec.containers[0].startupProbe.exec.command: is required",
			"10: Pod default/p: spec.containers[0].startupProbe.periodSeconds: must be 0 or more, is -1",
		}},
		{aPod + "  containers: [{name: a, image: i}]\n  hostname: a.b\n  subdomain: A\n  dnsPolicy: Cluster\n  restartPolicy: always\n  terminationGracePeriodSeconds: -1\n", []string{
			`6: Pod default/p: spec.hostname: "a.b" is not ` + ruleLabel,
			`7: Pod default/p: spec.subdomain: "A" is not ` + ruleLabel,
			`8: Pod default/p: spec.dnsPolicy: must be one of ClusterFirst, ClusterFirstWithHostNet, Default, None; is "Cluster"`,
			`9: Pod default/p: spec.restartPolicy: must be one of Always, OnFailure, Never; is "always"; did you mean Always?`,
			"10: Pod default/p: spec.terminationGracePeriodSeconds: must be 0 or more, is -1",
		}},

		// Workloads.
		{deployment(selector + template), nil},
		{deployment(template), []string{"4: Deployment default/d: spec.selector: is required"}},
		{deployment("  selector: {}\n" + template), []string{"5: Deployment default/d: spec.selector: must not be empty: it would select every pod"}},
		{deployment("  selector: {matchLabels: {app: wbe}}\n" + template), []string{"5: Deployment default/d: spec.selector: does not match the labels of the template: it wants app=wbe, they are app=web"}},
		{deployment("  selector:\n    matchExpressions:\n    - {key: app, operator: In}\n    - {key: app, operator: Is, values: [a]}\n    - {key: app, operator: Exists, values: [a]}\n    - {key: app}\n" + template), []string{
			"7: Deployment default/d: spec.selector.matchExpressions[0].values: is required where the operator is In",
			`8: Deployment default/d: spec.selector.matchExpressions[1].operator: must be one of In, NotIn, Exists, DoesNotExist; is "Is"`,
			"9: Deployment default/d: spec.selector.matchExpressions[2].values: must not be set where the operator is Exists",
			"10: Deployment default/d: spec.selector.matchExpressions[3].operator: is required",
		}},
		{deployment("  selector: {matchExpressions: [{key: app, operator: In, values: [web, api]}]}\n" + template), nil},
		{deployment("  replicas: -1\n  strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}\n" + selector + template), []string{
			"5: Deployment default/d: spec.replicas: must be 0 or more, is -1",
			"6: Deployment default/d: spec.strategy.rollingUpdate: must not be set where the type is Recreate",
		}},
		{deployment(selector + "  template:\n    metadata: {labels: {app: web}}\n    spec:\n      restartPolicy: Never\n      containers: [{name: c, image: i}]\n"),
			[]string{`9: Deployment default/d: spec.template.spec.restartPolicy: must be one of Always; is "Never"`}},
		{"apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: d}\nspec:\n  podManagementPolicy: Any\n  serviceName: A\n" + selector + template, []string{
			`5: StatefulSet default/d: spec.podManagementPolicy: must be one of OrderedReady, Parallel; is "Any"`,
			`6: StatefulSet default/d: spec.serviceName: "A" is not ` + ruleLabel,
		}},
		{"apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: d}\nspec:\n  selector: {matchLabels: {app: x}}\n" + template,
			[]string{"5: DaemonSet default/d: spec.selector: does not match the labels of the template: it wants app=x, they are app=web"}},
		{"apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: d}\nspec:\n" + template, []string{"4: ReplicaSet default/d: spec.selector: is required"}},
		{"apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  parallelism: -1\n" + selector + template, []string{
			"5: Job default/j: spec.parallelism: must be 0 or more, is -1",
			"6: Job default/j: spec.selector: may be set only where manualSelector is true",
			"7: Job default/j: spec.template.spec.restartPolicy: must be OnFailure or Never in a Job; the default is Always",
		}},
		{"apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}\n", nil},
	} {
		p := parse("f.yaml", []byte(tc.in))
		var want []string
		for _, w := range tc.want {
			want = append(want, "f.yaml:"+w)
		}
		before := t.Failed()
		compare(t, texts(p.problems), want)
		if (len(p.objects) == 1) != (len(tc.want) == 0) {
			t.Errorf("%d objects", len(p.objects))
		}
		if t.Failed() && !before {
			t.Logf("the first failure is of:\n%s", tc.in)
		}
	}
}
