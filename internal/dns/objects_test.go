package dns

// objects are those the DNS specification's examples need.
const objects = `
kind: Namespace
metadata: {name: default}
---
kind: Namespace
metadata: {name: empty}
---
kind: ServiceCIDR
metadata: {name: kubernetes}
spec: {cidrs: [10.96.0.0/16]}
---
kind: Node
metadata: {name: n}
spec: {podCIDRs: [10.244.0.0/24]}
---
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: 10.96.0.7
  clusterIPs: [10.96.0.7, "fd00:96::7"]
  ports: [{name: https, port: 443, protocol: TCP}, {name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
kind: Service
metadata: {name: plain, namespace: default}
spec: {clusterIP: 10.96.0.8, ports: [{port: 80, protocol: TCP}]}
---
kind: Service
metadata: {name: db, namespace: default}
spec: {clusterIP: None, clusterIPs: [None], ports: [{name: sql, port: 5432, protocol: TCP, targetPort: 6432}, {port: 9, protocol: TCP}]}
---
kind: EndpointSlice
metadata: {name: db-1, namespace: default, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 6432, protocol: TCP}, {name: "", port: 9, protocol: TCP}]
endpoints:
- {addresses: [10.244.0.3], hostname: db-0, conditions: {ready: true}}
- {addresses: [10.244.0.4], hostname: DB-1}
- {addresses: [10.244.0.5], hostname: db-2, conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.244.0.6], conditions: {ready: true}}
---
kind: EndpointSlice
metadata: {name: db-2, namespace: default, labels: {kubernetes.io/service-name: db}}
addressType: IPv6
ports: [{name: sql, port: 6432, protocol: TCP}]
endpoints:
- {addresses: ["fd00:244::3"], hostname: db-0, conditions: {ready: true}}
- {addresses: ["fd00:244::6"], conditions: {ready: true}}
---
kind: Service
metadata: {name: none, namespace: default}
spec: {clusterIP: None, ports: [{name: a, port: 1, protocol: TCP}]}
---
kind: Service
metadata: {name: ext, namespace: default}
spec: {type: ExternalName, externalName: www.Example.com}
---
kind: Service
metadata: {name: alias, namespace: default}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
---
kind: Service
metadata: {name: chain, namespace: default}
spec: {type: ExternalName, externalName: alias.default.svc.cluster.local.}
---
kind: Service
metadata: {name: dangling, namespace: default}
spec: {type: ExternalName, externalName: gone.default.svc.cluster.local}
---
kind: Service
metadata: {name: loop1, namespace: default}
spec: {type: ExternalName, externalName: loop2.default.svc.cluster.local}
---
kind: Service
metadata: {name: loop2, namespace: default}
spec: {type: ExternalName, externalName: loop1.default.svc.cluster.local}
---
kind: Service
metadata: {name: pending, namespace: default}
spec: {ports: [{name: a, port: 1, protocol: TCP}]}
`
