// Package match answers which route, rule and match takes a request at one port
// of a Gateway. A Table is immutable: readers need no lock, and a change makes a
// new one that shares with the old all that did not change.
//
// What it holds to, where the standard leaves room (Gateway API v1.6.3):
//
//   - Of the listeners of a port the most specific that fits the host takes the
//     request, and no other is asked, even if nothing there answers it
//     (GatewayHTTPListenerIsolation).
//   - Inside a listener a hostname orders rules, it does not fence them off:
//     HTTPRouteSpec.Hostnames gives "precedence ... to rules from the HTTPRoute"
//     with the more specific hostname. So when no rule of "a.example.com" takes a
//     request, those of "*.example.com" are tried, then "*.com", then those of any
//     host. The conformance tests hold no case against it.
//   - "*.example.com" fits one or more labels before example.com. An exact hostname
//     is more specific than any wildcard, and a longer wildcard than a shorter one.
//   - Then the order of model.Match holds: exact paths; prefixes and regular
//     expressions by their length in characters, at equal length the prefix first;
//     a method; the number of headers; the number of query parameters; then the
//     older route, "namespace/name", the kind, the rule, the match.
//   - Header values are compared as they are, several of one name joined with ",".
//     Query parameters are compared after decoding "%XX" and "+"; the first of a
//     name counts. A regular expression must fit the whole value or path.
//
// Paths are compared, and sent on, in one normal form: see Target. Paths that
// servers read in two ways are refused when the two lead to two rules: so "/a%2F..%2Fadmin"
// and "/admin;x/" pass no rule that stands in front of /admin.
package match
