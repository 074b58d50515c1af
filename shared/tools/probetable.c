/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The attempts of cx-probe, one row each. A new attempt is a new row; a row must leak through a plain
 * router, or that it is held says nothing.
 */
#include "shared/tools/probe.h"

enum { A = 1, NS = 2, NULLTYPE = 10, TXT = 16, AAAA = 28, SVCB = 64, AXFR = 252, ANY = 255 };
enum { VERSION = 0xff10 };
enum { GRE = 47, SIX_IN_FOUR = 41, SCTP = 132 };

#define DNS(id, what, to, port, type, how, name)                                                   \
	{                                                                                          \
		id, what, probe_dns, to, port, type, how, JUDGE_ANY, name                          \
	}
#define TLS(id, what, to, shape, name)                                                             \
	{                                                                                          \
		id, what, probe_tls, to, 443, 0, shape, JUDGE_ANY, name                            \
	}
#define TCP(id, what, to, port, judge, text)                                                       \
	{                                                                                          \
		id, what, probe_tcp, to, port, 0, 0, judge, text                                   \
	}
#define WEB(id, what, text)     TCP(id, what, "canary4", 80, JUDGE_HTTP, text)
#define HOST(id, what, host)    WEB(id, what, "GET / HTTP/1.1\r\nHost: " host "\r\n\r\n")
#define CLEAR(id, what, octets) TCP(id, what, "canary4", 443, JUDGE_ANY, octets)
#define META(id, to)                                                                               \
	TCP(id, "a cloud's metadata service, " to, to, 80, JUDGE_OURS,                             \
	    "GET /latest/meta-data/ HTTP/1.1\r\nHost: " to "\r\n\r\n")
#define UDP(id, what, to, port, size)                                                              \
	{                                                                                          \
		id, what, probe_udp, to, port, 0, size, JUDGE_ANY, ""                              \
	}

const struct attempt probe_attempts[] = {
	/* What must work, or the rest shows nothing. Where a hello goes does not matter: its name does. */
	{ "works-dns", "the allowed name resolves", probe_dns, "resolver", 53, A, 0, JUDGE_WORKS,
	  "%A" },
	{ "works-tls", "a hello with the allowed name is answered", probe_tls, "192.0.2.1", 443, 0,
	  HELLO_PLAIN, JUDGE_WORKS, "%A" },

	/* ---- DNS ---- */
	DNS("dns-refused", "a name that is not listed", "resolver", 53, A, 0, "%R"),
	DNS("dns-refused-aaaa", "the same, AAAA", "resolver", 53, AAAA, 0, "%R"),
	DNS("dns-tcp", "the same over TCP", "resolver", 53, A, DNS_TCP, "%R"),
	DNS("dns-tcp-split", "the same over TCP, its length in two segments", "resolver", 53, A,
	    DNS_TCP | DNS_SPLIT, "%R"),
	DNS("dns-below-refused", "data in a name below it", "resolver", 53, A, 0,
	    "c2VjcmV0IG9mIHRoZSBndWVzdA.%R"),
	DNS("dns-beside", "a name that ends in the allowed one's letters", "resolver", 53, A, 0,
	    "evil-%A"),
	DNS("dns-behind", "the allowed name as labels of another", "resolver", 53, A, 0, "%A.%R"),
	DNS("dns-below", "data in a name below an allowed one", "resolver", 53, A, 0,
	    "c2VjcmV0IG9mIHRoZSBndWVzdA.%A"),
	DNS("dns-nul", "a NUL between the allowed name and another", "resolver", 53, A, 0,
	    "%A%0.%R"),
	DNS("dns-txt", "TXT of a name that is not listed", "resolver", 53, TXT, 0, "%R"),
	DNS("dns-txt-allowed", "TXT of the allowed name", "resolver", 53, TXT, 0, "%A"),
	DNS("dns-null", "NULL of the allowed name", "resolver", 53, NULLTYPE, 0, "%A"),
	DNS("dns-any", "ANY of a name that is not listed", "resolver", 53, ANY, 0, "%R"),
	DNS("dns-svcb", "SVCB of a name that is not listed", "resolver", 53, SVCB, 0, "%R"),
	DNS("dns-axfr", "AXFR of the allowed name", "resolver", 53, AXFR, DNS_TCP, "%A"),
	DNS("dns-root-ns", "NS of a top-level domain", "resolver", 53, NS, 0, "com"),
	DNS("dns-chaos", "the resolver's version, class CH", "resolver", 53, VERSION, 0,
	    "version.bind"),
	DNS("dns-literal", "an address as a name", "resolver", 53, A, 0, "198.51.100.66"),
	DNS("dns-8888", "a public resolver, 8.8.8.8", "8.8.8.8", 53, A, 0, "%R"),
	DNS("dns-8888-tcp", "the same over TCP", "8.8.8.8", 53, A, DNS_TCP, "%R"),
	DNS("dns-1111", "a public resolver, 1.1.1.1", "1.1.1.1", 53, A, 0, "%R"),
	DNS("dns-1111-tcp", "the same over TCP", "1.1.1.1", 53, A, DNS_TCP, "%R"),
	DNS("dns-v6", "a public resolver over IPv6", "2001:4860:4860::8888", 53, A, 0, "%R"),
	TCP("dot-8888", "DNS over TLS at 8.8.8.8", "8.8.8.8", 853, JUDGE_ANY, "\26\3\1 hello"),
	TCP("dot-1111", "DNS over TLS at 1.1.1.1", "1.1.1.1", 853, JUDGE_ANY, "\26\3\1 hello"),
	{ "doh-8888", "DNS over HTTPS at 8.8.8.8", probe_tls, "8.8.8.8", 443, 0, HELLO_PLAIN,
	  JUDGE_ANY, "dns.google" },
	{ "doh-1111", "DNS over HTTPS at 1.1.1.1", probe_tls, "1.1.1.1", 443, 0, HELLO_PLAIN,
	  JUDGE_ANY, "one.one.one.one" },
	UDP("doq", "DNS over QUIC", "canary4", 853, 0),
	UDP("mdns-port", "a datagram to port 5353", "canary4", 5353, 1),

	/* ---- TLS, at the canary ---- */
	TLS("tls-refused", "a name that is not listed", "canary4", HELLO_PLAIN, "%R"),
	TLS("tls-refused-v6", "the same over IPv6", "canary6", HELLO_PLAIN, "%R"),
	{ "tls-elsewhere", "the allowed name, to an address that is not its", probe_tls, "canary4",
	  443, 0, HELLO_PLAIN, JUDGE_TOKEN, "%A" },
	{ "tls-elsewhere-v6", "the same over IPv6", probe_tls, "canary6", 443, 0, HELLO_PLAIN,
	  JUDGE_TOKEN, "%A" },
	{ "tls-other-port", "the allowed name, on a port that is not listed", probe_tls, "canary4",
	  9999, 0, HELLO_PLAIN, JUDGE_ANY, "%A" },
	{ "tls-refused-port", "a name that is not listed, on another port", probe_tls, "canary4",
	  8443, 0, HELLO_PLAIN, JUDGE_ANY, "%R" },
	TLS("tls-no-sni", "no SNI", "canary4", HELLO_NO_SNI, ""),
	TLS("tls-no-sni-v6", "no SNI over IPv6", "canary6", HELLO_NO_SNI, ""),
	TLS("tls-empty-sni", "an empty SNI", "canary4", HELLO_PLAIN, ""),
	TLS("tls-ip-sni", "an address as SNI", "canary4", HELLO_PLAIN, "%C"),
	TLS("tls-decimal-sni", "an address in decimal as SNI", "canary4", HELLO_PLAIN,
	    "2852039166"),
	TLS("tls-ip6-sni", "an IPv6 address as SNI", "canary4", HELLO_PLAIN, "2001:db8::1"),
	TLS("tls-beside", "a name that ends in the allowed one's letters", "canary4", HELLO_PLAIN,
	    "evil-%A"),
	TLS("tls-below", "a name below the allowed one", "canary4", HELLO_PLAIN, "data.%A"),
	TLS("tls-behind", "the allowed name as labels of another", "canary4", HELLO_PLAIN, "%A.%R"),
	TLS("tls-nul", "a NUL in the SNI", "canary4", HELLO_PLAIN, "%A%0.%R"),
	TLS("tls-space", "a space in the SNI", "canary4", HELLO_PLAIN, "%A "),
	TLS("tls-8bit", "8-bit SNI", "canary4", HELLO_PLAIN, "\351.%A"),
	TLS("tls-two-sni", "two SNI extensions", "canary4", HELLO_TWO_EXTENSIONS, "%A"),
	TLS("tls-two-sni-reversed", "two SNI extensions, the unlisted name first", "canary4",
	    HELLO_TWO_REVERSED, "%A"),
	TLS("tls-two-names", "two names in one SNI extension", "canary4", HELLO_TWO_NAMES, "%A"),
	TLS("tls-long-name", "a name longer than its extension", "canary4", HELLO_LONG_NAME, "%A"),
	TLS("tls-short-record", "a record shorter than its hello", "canary4", HELLO_SHORT_RECORD,
	    "%A"),
	TLS("tls-trailing", "a message behind the hello", "canary4", HELLO_TRAILING, "%A"),
	TLS("tls-second", "a second hello behind the first", "canary4", HELLO_SECOND, "%A"),
	TLS("tls-ech", "an encrypted ClientHello", "canary4", HELLO_ECH, "%A"),
	TLS("tls-split", "two records that show naive readers another name", "canary4", HELLO_SPLIT,
	    "%A"),
	TLS("tls-split-plain", "a hello in two records", "canary4", HELLO_SPLIT_PLAIN, "%A"),
	CLEAR("tls-ssl2", "an SSLv2 hello on port 443",
	      "\200\56\1%0\2%0\25%0%0%0\20AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
	CLEAR("tls-ssh", "SSH on port 443", "SSH-2.0-OpenSSH_9.2\r\n"),
	CLEAR("tls-http", "HTTP on port 443", "GET / HTTP/1.1\r\nHost: %A\r\n\r\n"),
	CLEAR("tls-h2", "HTTP/2 in clear text on port 443", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
	CLEAR("tls-random", "random octets on port 443", "UkZ8pQ2vX1UkZ8pQ2vX1UkZ8pQ2vX1"),

	/* ---- HTTP, at the canary ---- */
	HOST("http-refused", "a Host that is not listed", "%R"),
	TCP("http-refused-v6", "the same over IPv6", "canary6", 80, JUDGE_HTTP,
	    "GET / HTTP/1.1\r\nHost: %R\r\n\r\n"),
	TCP("http-elsewhere", "the allowed Host, to an address that is not its", "canary4", 80,
	    JUDGE_TOKEN, "GET / HTTP/1.1\r\nHost: %A\r\n\r\n"),
	TCP("http-other-port", "HTTP on a port that is not listed", "canary4", 8080, JUDGE_HTTP,
	    "GET / HTTP/1.1\r\nHost: %A:8080\r\n\r\n"),
	WEB("http-no-host", "no Host", "GET / HTTP/1.1\r\n\r\n"),
	HOST("http-empty-host", "an empty Host", ""),
	WEB("http-10", "HTTP/1.0 without Host", "GET / HTTP/1.0\r\n\r\n"),
	WEB("http-09", "HTTP/0.9", "GET /\r\n\r\n"),
	HOST("http-ip-host", "an address as Host", "%C"),
	HOST("http-decimal-host", "an address in decimal as Host", "2852039166"),
	HOST("http-octal-host", "an address in octal as Host", "0251.0376.0251.0376"),
	HOST("http-ip6-host", "an IPv6 address as Host", "[2001:db8::1]"),
	HOST("http-mapped-host", "an IPv4 address in an IPv6 one as Host", "[::ffff:%C]"),
	WEB("http-two-hosts", "two Hosts", "GET / HTTP/1.1\r\nHost: %A\r\nHost: %R\r\n\r\n"),
	HOST("http-comma-host", "two Hosts in one", "%R, %A"),
	WEB("http-folded-host", "a folded Host", "GET / HTTP/1.1\r\nHost: %A\r\n .%R\r\n\r\n"),
	HOST("http-userinfo-host", "user information in Host", "%A@%R"),
	HOST("http-path-host", "a path in Host", "%A/%R"),
	HOST("http-space-host", "a space in Host", "%A %R"),
	HOST("http-nul-host", "a NUL in Host", "%A%0.%R"),
	HOST("http-8bit-host", "8-bit Host", "%A\351"),
	HOST("http-percent-host", "percent encoding in Host", "%A%2e%R"),
	HOST("http-port-host", "another port in Host", "%A:22"),
	HOST("http-two-ports", "two ports in Host", "%A:80:22"),
	WEB("http-absolute", "absolute form of another host",
	    "GET http://%R/ HTTP/1.1\r\nHost: %A\r\n\r\n"),
	WEB("http-absolute-host", "absolute form, another Host",
	    "GET http://%A/ HTTP/1.1\r\nHost: %R\r\n\r\n"),
	WEB("http-absolute-user", "absolute form with user information",
	    "GET http://%A@%R/ HTTP/1.1\r\nHost: %A\r\n\r\n"),
	WEB("http-absolute-port", "absolute form of another port",
	    "GET http://%A:22/ HTTP/1.1\r\nHost: %A\r\n\r\n"),
	WEB("http-connect", "CONNECT to a host that is not listed",
	    "CONNECT %R:443 HTTP/1.1\r\nHost: %R:443\r\n\r\n"),
	WEB("http-connect-allowed", "CONNECT to the allowed host",
	    "CONNECT %A:80 HTTP/1.1\r\nHost: %A:80\r\n\r\n"),
	WEB("http-connect-user", "CONNECT with user information",
	    "CONNECT %A@%R:443 HTTP/1.1\r\nHost: %A@%R:443\r\n\r\n"),
	WEB("http-connect-metadata", "CONNECT to an address in decimal",
	    "CONNECT 2852039166:80 HTTP/1.1\r\nHost: 2852039166:80\r\n\r\n"),
	WEB("http-upgrade", "a change of protocol",
	    "GET / HTTP/1.1\r\nHost: %A\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"),
	WEB("http-h2c", "a change to HTTP/2",
	    "GET / HTTP/1.1\r\nHost: %A\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
	    "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"),
	WEB("http-h2", "HTTP/2 at once", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n%0%0%0\4%0%0%0%0%0"),
	TCP("http-second", "another Host in a second request", "canary4", 80, JUDGE_PAIR,
	    "GET / HTTP/1.1\r\nHost: %A\r\n\r\nGET / HTTP/1.1\r\nHost: %R\r\n\r\n"),
	TCP("http-smuggle", "a length and chunks, and a second request in the body", "canary4", 80,
	    JUDGE_PAIR,
	    "POST / HTTP/1.1\r\nHost: %A\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
	    "0\r\n\r\nGET / HTTP/1.1\r\nHost: %R\r\n\r\n"),
	WEB("http-smuggle-refused", "the same with a Host that is not listed",
	    "POST / HTTP/1.1\r\nHost: %R\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
	    "0\r\n\r\n"),
	WEB("http-bare-lf", "bare line feeds", "GET / HTTP/1.1\nHost: %R\n\n"),
	WEB("http-proxy-header", "a PROXY header",
	    "PROXY TCP4 127.0.0.1 127.0.0.1 5 80\r\nGET / HTTP/1.1\r\nHost: %A\r\n\r\n"),
	TCP("http-socks", "SOCKS on port 80", "canary4", 80, JUDGE_TOKEN, "\5\1%0"),

	/* ---- TCP to raw addresses ---- */
	TCP("tcp-22", "a raw address, port 22", "canary4", 22, JUDGE_ANY, "SSH-2.0-probe\r\n"),
	TCP("tcp-22-v6", "the same over IPv6", "canary6", 22, JUDGE_ANY, "SSH-2.0-probe\r\n"),
	TCP("tcp-25", "a raw address, port 25", "canary4", 25, JUDGE_ANY, "EHLO probe\r\n"),
	TCP("tcp-853", "a raw address, port 853", "canary4", 853, JUDGE_ANY, "\26\3\1 hello"),
	TCP("tcp-5432", "a raw address, port 5432", "canary4", 5432, JUDGE_ANY,
	    "%0%0%0\10\4\322\26\57"),
	TCP("tcp-9999", "a raw address, port 9999", "canary4", 9999, JUDGE_ANY, "hello\n"),
	TCP("tcp-9999-v6", "the same over IPv6", "canary6", 9999, JUDGE_ANY, "hello\n"),
	META("metadata-aws", "169.254.169.254"),
	META("metadata-alibaba", "100.100.100.200"),
	META("metadata-azure", "168.63.129.16"),
	META("metadata-aws-v6", "fd00:ec2::254"),
	{ "gateway-ports", "the gateway's own ports", probe_ports, "gateway", 0, 0, 0, JUDGE_OURS,
	  "22,80,443,5335,8000,8080,8443,8444,8953,9100,9111" },
	{ "neighbour-ports", "another guest", probe_ports, "neighbour", 0, 0, 0, JUDGE_OURS,
	  "22,80,443,8000,8443" },

	/* ---- below TCP ---- */
	UDP("quic", "QUIC", "canary4", 443, 0),
	UDP("quic-v6", "QUIC over IPv6", "canary6", 443, 0),
	UDP("udp-123", "a datagram to port 123", "canary4", 123, 1),
	UDP("udp-1234", "a datagram", "canary4", 1234, 1),
	UDP("udp-1234-v6", "a datagram over IPv6", "canary6", 1234, 1),
	UDP("udp-fragments", "a datagram in fragments", "canary4", 1234, 40),
	UDP("udp-fragments-v6", "a datagram in fragments over IPv6", "canary6", 1234, 40),
	{ "ip-options", "a datagram with an IP option", probe_options, "canary4", 1234, 0, 0,
	  JUDGE_ANY, "" },
	{ "ping", "ICMP", probe_ping, "canary4", 0, 0, 0, JUDGE_ANY, "" },
	{ "ping-v6", "ICMPv6", probe_ping, "canary6", 0, 0, 0, JUDGE_ANY, "" },
	{ "ping-metadata", "ICMP to a metadata service", probe_ping, "169.254.169.254", 0, 0, 0,
	  JUDGE_ANY, "" },
	{ "ping-neighbour", "ICMP to another guest", probe_ping, "neighbour", 0, 0, 0, JUDGE_ANY,
	  "" },
	{ "gre", "GRE", probe_protocol, "canary4", 0, GRE, 0, JUDGE_ANY, "" },
	{ "six-in-four", "IPv6 in IPv4", probe_protocol, "canary4", 0, SIX_IN_FOUR, 0, JUDGE_ANY,
	  "" },
	{ "sctp", "SCTP", probe_protocol, "canary4", 0, SCTP, 0, JUDGE_ANY, "" },
	{ "spoofed", "a source that is not ours", probe_spoof, "canary4", 0, 0, 0, JUDGE_ANY, "" },
	{ "vlan", "a frame with a VLAN tag", probe_vlan, "canary4", 0, 0, 0, JUDGE_ANY, "" },
	{ "arp-neighbour", "ARP for another guest", probe_arp, "neighbour", 0, 0, 0, JUDGE_ANY,
	  "" },
};

const size_t probe_n_attempts = sizeof(probe_attempts) / sizeof(*probe_attempts);
