/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON Schema of the language (schema.h), from tables like those that the compiler reads by. Must
 * never refuse what the compiler accepts.
 */
#include "shared/compile/schema.h"

#include <string.h>

#include "shared/compile/lint.h"
#include "shared/compile/out.h"
#include "shared/policy/verdict.h"

/* A key of an object; type: a definition. */
struct prop {
	const char *key, *type, *about;
};

struct object {
	const char *name;
	const struct prop *props;
	size_t n;
	const char *more; /* further members of the schema, ", ..." or "" */
};

/* ---- single values: a plain word of YAML is a text for the compiler, also true and 12 ---- */

static const struct {
	const char *name, *schema;
} values[] = {
	{ "text", "{\"type\":[\"string\",\"number\",\"boolean\"]}" },
	{ "texts", "{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/text\"}}" },
	{ "flag", "{\"type\":\"boolean\"}" },
	{ "version", "{\"enum\":[1,\"1\"]}" },
	{ "serial", "{\"anyOf\":[{\"type\":\"integer\",\"minimum\":1},"
		    "{\"type\":\"string\",\"pattern\":\"^[1-9][0-9]*$\"}]}" },
	{ "date", "{\"type\":\"string\",\"pattern\":\"^[0-9]{4}-[0-9]{2}-[0-9]{2}$\"}" },
	{ "time", "{\"type\":\"string\",\"pattern\":"
		  "\"^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt][0-9]{2}:[0-9]{2}:[0-9]{2}[Zz])?$\"}" },
	{ "duration", "{\"type\":\"string\",\"pattern\":\"^[0-9]+[smhd]$\"}" },
	{ "name", "{\"type\":[\"string\",\"boolean\"],\"pattern\":\"^[^*\\\\s/:@]+$\"}" },
	{ "names", "{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/name\"}}" },
	{ "pattern",
	  "{\"type\":[\"string\",\"boolean\"],\"pattern\":\"^([*][.])?[^*\\\\s/:@]+$\"}" },
	{ "prefix", "{\"type\":\"string\",\"pattern\":\"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$\"}" },
	{ "prefixes", "{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/prefix\"}}" },
	{ "server", "{\"type\":\"string\",\"pattern\":\"^[0-9A-Fa-f:.]+(@[0-9]{1,5})?$\"}" },
	{ "servers", "{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/server\"}}" },
	{ "port", "{\"anyOf\":[{\"type\":\"integer\",\"minimum\":1,\"maximum\":65535},"
		  "{\"type\":\"string\",\"pattern\":\"^[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?$\"}]}" },
	{ "ports", "{\"anyOf\":[{\"$ref\":\"#/$defs/port\"},"
		   "{\"type\":\"array\",\"minItems\":1,\"items\":{\"$ref\":\"#/$defs/port\"}}]}" },
	{ "port_number", "{\"anyOf\":[{\"type\":\"integer\",\"minimum\":1,\"maximum\":65535},"
			 "{\"type\":\"string\",\"pattern\":\"^[1-9][0-9]{0,4}$\"}]}" },
	{ "count", "{\"anyOf\":[{\"type\":\"integer\",\"minimum\":0,\"maximum\":4096},"
		   "{\"type\":\"string\",\"pattern\":\"^[0-9]{1,4}$\"}]}" },
	{ "protocols",
	  "{\"type\":\"array\",\"minItems\":1,\"items\":{\"enum\":[\"https\",\"http\",\"tcp\"]}}" },
	{ "upgrades", "{\"type\":\"array\",\"items\":{\"enum\":[\"websocket\"]}}" },
	{ "methods",
	  "{\"type\":\"array\",\"minItems\":1,"
	  "\"items\":{\"type\":[\"string\",\"number\"],\"pattern\":\"^[A-Z0-9_-]{1,32}$\"}}" },
	{ "paths", "{\"type\":\"array\",\"minItems\":1,"
		   "\"items\":{\"type\":\"string\",\"pattern\":\"^/[^*?#;\\\\s]*[*]?$\"}}" },
	{ "http",
	  "{\"type\":\"array\",\"minItems\":1,\"items\":{\"$ref\":\"#/$defs/http_rule\"}}" },
	{ "environment", "{\"enum\":[\"staging\",\"production\",\"internal\"]}" },
	{ "environments", "{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/environment\"}}" },
	{ "labels", "{\"type\":\"object\",\"propertyNames\":{\"pattern\":\"^[^=\\\\s]+$\"},"
		    "\"additionalProperties\":{\"$ref\":\"#/$defs/text\"}}" },
	{ "allow_or_deny", "{\"enum\":[\"allow\",\"deny\"]}" },
	{ "mode", "{\"enum\":[\"enforce\",\"observe\"]}" },
	{ "ancestors", "{\"enum\":[\"nxdomain\",\"nodata\"]}" },
	{ "query_types", "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":"
			 "\"^(A|NS|CNAME|SOA|PTR|MX|TXT|AAAA|SRV|NAPTR|DS|SSHFP|DNSKEY|TLSA|SVCB|"
			 "HTTPS|CAA|TYPE[0-9]{1,5})$\"}}" },
	{ "profile_name",
	  "{\"type\":[\"string\",\"number\",\"boolean\"],\"pattern\":\"^[A-Za-z0-9_.-]{1,64}$\"}" },
	{ "profile_names", "{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/profile_name\"}}" },
	{ "presets", "{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/preset\"}}" },
	{ "resolve", "{\"enum\":[\"gateway\",\"upstream\"]}" },
	{ "proxy_url",
	  "{\"type\":\"string\",\"pattern\":\"^http://[^/@?#\\\\s]+:[1-9][0-9]{0,4}$\"}" },
	{ "limit_events", "{\"type\":\"string\",\"pattern\":\"^[1-9][0-9]*/(s|min|h|day)( burst "
			  "[1-9][0-9]*)?$\"}" },
	{ "limit_octets",
	  "{\"type\":\"string\",\"pattern\":\"^[1-9][0-9]*([KMG]i?B|B)?/(s|min|h|day)"
	  "( burst [1-9][0-9]*([KMG]i?B|B)?)?$\"}" },
	{ "limit_at_once", "{\"anyOf\":[{\"type\":\"integer\",\"minimum\":1},"
			   "{\"type\":\"string\",\"pattern\":\"^[1-9][0-9]*$\"}]}" },
	{ "list", "{\"anyOf\":[{\"type\":[\"string\",\"number\",\"boolean\"],\"minLength\":1},{\"$"
		  "ref\":\"#/$defs/"
		  "inline_list\"}]}" },
	{ "allowlist", "{\"type\":\"array\",\"items\":{\"anyOf\":["
		       "{\"$ref\":\"#/$defs/pattern\"},{\"$ref\":\"#/$defs/entry\"}]}}" },
	{ "denylist", "{\"type\":\"array\",\"items\":{\"anyOf\":["
		      "{\"$ref\":\"#/$defs/pattern\"},{\"$ref\":\"#/$defs/deny_entry\"}]}}" },
	{ "include",
	  "{\"type\":\"array\",\"items\":{\"anyOf\":["
	  "{\"type\":\"string\",\"minLength\":1},{\"$ref\":\"#/$defs/include_item\"}]}}" },
	{ "require", "{\"type\":\"array\",\"items\":{\"enum\":[\"owner\",\"reason\",\"data\",\"if_"
		     "unreachable\","
		     "\"environment\",\"added\",\"review_by\",\"expires\"]}}" },
	{ "profiles",
	  "{\"type\":\"object\",\"propertyNames\":{\"allOf\":[{\"$ref\":\"#/$defs/profile_name\"},"
	  "{\"not\":{\"const\":\"default\"}}]},\"additionalProperties\":{\"$ref\":\"#/$defs/"
	  "profile\"}}" },
	{ "sources", "{\"type\":\"object\",\"propertyNames\":{\"$ref\":\"#/$defs/prefix\"},"
		     "\"additionalProperties\":{\"anyOf\":[{\"$ref\":\"#/$defs/profile_name\"},"
		     "{\"$ref\":\"#/$defs/placed_source\"}]}}" },
	{ "unlisted_sources",
	  "{\"anyOf\":[{\"const\":\"deny\"},{\"$ref\":\"#/$defs/ignored_sources\"}]}" },
	{ "resolvers",
	  "{\"type\":\"object\",\"additionalProperties\":{\"$ref\":\"#/$defs/resolver\"}}" },
	{ "credential_name",
	  "{\"type\":[\"string\",\"number\",\"boolean\"],\"pattern\":\"^[A-Za-z0-9_-]{1,64}$\"}" },
	{ "credentials",
	  "{\"type\":\"object\",\"propertyNames\":{\"$ref\":\"#/$defs/credential_name\"},"
	  "\"additionalProperties\":{\"$ref\":\"#/$defs/credential\"}}" },
	{ "credential_source", "{\"enum\":[\"vault\",\"file\",\"systemd\"]}" },
	{ "credential_scope", "{\"enum\":[\"task\",\"gateway\"]}" },
	{ "permissions", "{\"enum\":[\"read-only\",\"read-write\"]}" },
	{ "header", "{\"type\":\"string\",\"pattern\":\"^[A-Za-z0-9_-]+:.*[{]value[}]\"}" },
	{ "services",
	  "{\"type\":\"object\",\"additionalProperties\":{\"$ref\":\"#/$defs/service\"}}" },
	{ "address", "{\"type\":\"string\",\"pattern\":\"^[0-9A-Fa-f:.]+$\"}" },
	{ "target",
	  "{\"type\":\"string\",\"pattern\":\"^(dns:|https://|http://|connect:|tcp:)\\\\S+$\"}" },
	{ "targets", "{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/target\"}}" },
	{ "denied_targets", "{\"anyOf\":[{\"$ref\":\"#/$defs/targets\"},{\"type\":\"object\","
			    "\"propertyNames\":{\"$ref\":\"#/$defs/target\"},"
			    "\"additionalProperties\":{\"$ref\":\"#/$defs/reason\"}}]}" },
	{ "tests", "{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/test\"}}" },
	{ "api_version", "{\"enum\":[\"security.istio.io/v1\",\"security.istio.io/v1beta1\"]}" },
	{ "kind", "{\"const\":\"AuthorizationPolicy\"}" },
	{ "anything", "true" },
	{ "action", "{\"enum\":[\"ALLOW\",\"DENY\"]}" },
	{ "patterns", "{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":[\"string\","
		      "\"number\",\"boolean\"],"
		      "\"pattern\":\"^([*]?[^*]+|[^*]+[*]|[*])$\"}}" },
	{ "rules", "{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"array\",\"items\":{\"$ref\":\"#/"
		   "$defs/rule\"}}]}" },
	{ "rule_to",
	  "{\"type\":\"array\",\"minItems\":1,\"items\":{\"$ref\":\"#/$defs/to_item\"}}" },
	{ "rule_from",
	  "{\"type\":\"array\",\"minItems\":1,\"items\":{\"$ref\":\"#/$defs/from_item\"}}" },
};

/* ---- objects ---- */

#define ONE_SUBJECT                                                                                \
	",\"oneOf\":[{\"required\":[\"domain\"]},{\"required\":[\"cidr\"]},{\"required\":["        \
	"\"list\"]}]"

#define DESCRIPTIVE                                                                                \
	{ "owner", "text", "who answers for the entry" },                                          \
		{ "reason", "text", "why it is needed" }, { "data", "text", "what leaves" },       \
		{ "if_unreachable", "text", "what breaks without it" },                            \
		{ "environment", "environment", "" }, { "added", "date", "" },                     \
		{ "review_by", "date", "lint warns from then on" }, { "labels", "labels", "" },    \
	{                                                                                          \
		"lint", "lint", "findings that are fine here, and why"                             \
	}

static const struct prop entry[] = {
	{ "domain", "pattern", "a name, or *. and a name for all names below it" },
	{ "cidr", "prefix", "raw addresses; ports are required" },
	{ "list", "list", "a file of names, one a line" },
	{ "ports", "ports", "left out: 443 for https, 80 for http" },
	{ "protocols", "protocols", "left out: https and http" },
	{ "http", "http", "what requests may look like" },
	{ "upgrade", "upgrades", "protocol upgrades; left out: none" },
	{ "expires", "time", "from then on the entry is not there" },
	{ "private", "flag", "may resolve to private addresses" },
	{ "limits", "limits", "" },
	{ "unseen", "allow_or_deny", "http rules where TLS hides the request" },
	DESCRIPTIVE,
};

static const struct prop deny_entry[] = {
	{ "domain", "pattern", "" },
	{ "cidr", "prefix", "" },
	{ "list", "list", "" },
	DESCRIPTIVE,
};

static const struct prop lint[] = { { "allow", "lint_codes", "" }, { "why", "text", "" } };
static const struct prop inline_list[] = { { "path", "text", "what the list is called" },
					   { "names", "text", "one a line" } };
static const struct prop http_rule[] = { { "methods", "methods", "" }, { "paths", "paths", "" } };

static const struct prop dns[] = {
	{ "query_types", "query_types", "" },
	{ "deny_ttl", "duration", "how long a denial is kept" },
	{ "ancestors", "ancestors", "what a name is that has listed names below it" },
	{ "aaaa", "flag", "false: no IPv6 addresses" },
	{ "private_ranges", "prefixes", "" },
	{ "custom_resolvers", "servers", "" },
	{ "allowlist_additions", "allowlist", "" },
};

static const struct prop tls[] = { { "ech", "allow_or_deny", "" } };
static const struct prop proxy[] = { { "http", "proxy_url", "" },
				     { "https", "proxy_url", "" },
				     { "no_proxy", "text", "" },
				     { "resolve", "resolve", "" },
				     { "auth", "credential_name", "" } };
static const struct prop tasks[] = { { "entries", "count", "" },
				     { "within", "texts", "" },
				     { "max_ttl", "duration", "" } };

static const struct prop profile[] = {
	{ "extends", "profile_names", "profiles whose entries it sees too" },
	{ "presets", "presets", "" },
	{ "mode", "mode", "observe: nothing is denied but what must be" },
	{ "environments", "environments", "entries must be labelled so" },
	{ "staging_only", "flag", "environments: [staging]" },
	{ "allowlist", "allowlist", "" },
	{ "deny", "denylist", "" },
	{ "dns", "dns", "" },
	{ "tls", "tls", "" },
	{ "limits", "limits", "" },
	{ "proxy", "proxy", "" },
	{ "resolvers", "resolvers", "" },
	{ "credentials", "texts", "which it may use" },
	{ "tasks", "tasks", "what a binding may add" },
	{ "allowlist_additions", "allowlist", "entries that resolve through custom_resolvers" },
	{ "lint", "lint", "findings that are fine here, and why" },
};

static const struct prop resolver[] = { { "servers", "servers", "" }, { "zones", "names", "" } };
static const struct prop include_item[] = { { "path", "text", "" },
					    { "may", "texts", "what the file may set" } };
static const struct prop placed_source[] = {
	{ "bind", "profile_names", "decided at run time" },
	{ "profile", "profile_name", "the same as the profile alone" },
	{ "lint", "lint", "findings that are fine here, and why" },
};
static const struct prop ignored_sources[] = { { "ignore", "prefixes", "" } };
static const struct prop credential[] = {
	{ "source", "credential_source", "" },
	{ "scope", "credential_scope", "" },
	{ "permissions", "permissions", "" },
	{ "hosts", "names", "" },
	{ "header", "header", "" },
	{ "limits", "limits", "" },
	{ "unseen", "allow_or_deny", "read-only where TLS hides the requests" },
	{ "lint", "lint", "findings that are fine here, and why" },
};
static const struct prop mesh[] = { { "services", "services", "" } };
static const struct prop service[] = { { "host", "name", "" },
				       { "port", "port_number", "" },
				       { "principal", "text", "" },
				       { "labels", "labels", "" } };
static const struct prop test[] = { { "name", "text", "" },
				    { "profile", "profile_name", "" },
				    { "source", "address", "" },
				    { "allow", "targets", "" },
				    { "deny", "denied_targets", "" } };

static const struct prop policy[] = {
	{ "version", "version", "" },
	{ "revision", "text", "shown in logs, audit and metrics" },
	{ "serial", "serial", "ordered; needed with --sign" },
	{ "presets_version", "text", "pins what the presets mean" },
	{ "audience", "texts", "hosts configured for another audience refuse the file" },
	{ "include", "include", "" },
	{ "require", "require", "keys that every allow entry must have" },
	{ "network", "profile", "the profile `default`" },
	{ "never", "denylist", "beats every allow" },
	{ "profiles", "profiles", "" },
	{ "sources", "sources", "whom an address belongs to; the longest prefix wins" },
	{ "unlisted_sources", "unlisted_sources", "" },
	{ "resolver_clients", "prefixes", "" },
	{ "credentials", "credentials", "" },
	{ "mesh", "mesh", "" },
	{ "tests", "tests", "run by every compile" },
};

static const struct prop authorization[] = { { "apiVersion", "api_version", "" },
					     { "kind", "kind", "" },
					     { "metadata", "metadata", "" },
					     { "spec", "spec", "" } };
static const struct prop metadata[] = { { "name", "text", "" },
					{ "namespace", "anything", "" },
					{ "labels", "anything", "" },
					{ "annotations", "anything", "" } };
static const struct prop spec[] = { { "selector", "selector", "" },
				    { "action", "action", "" },
				    { "rules", "rules", "" } };
static const struct prop selector[] = { { "matchLabels", "labels", "" } };
static const struct prop rule[] = { { "to", "rule_to", "" }, { "from", "rule_from", "" } };
static const struct prop to_item[] = { { "operation", "operation", "" } };
static const struct prop from_item[] = { { "source", "peer", "" } };
static const struct prop operation[] = { { "methods", "patterns", "" },
					 { "paths", "patterns", "" } };
static const struct prop peer[] = { { "principals", "patterns", "" } };

#define OBJECT(name, more)                                                                         \
	{                                                                                          \
#name, name, sizeof(name) / sizeof((name)[0]), more                                \
	}

static const struct object objects[] = {
	OBJECT(policy, ""),
	OBJECT(profile, ""),
	OBJECT(entry, ONE_SUBJECT ",\"dependentRequired\":{\"cidr\":[\"ports\"]}"),
	OBJECT(deny_entry, ONE_SUBJECT),
	OBJECT(lint, ",\"required\":[\"why\"]"),
	OBJECT(inline_list, ",\"required\":[\"path\",\"names\"]"),
	OBJECT(http_rule, ""),
	OBJECT(dns, ""),
	OBJECT(tls, ""),
	OBJECT(proxy, ""),
	OBJECT(tasks, ""),
	OBJECT(resolver, ",\"required\":[\"servers\",\"zones\"]"),
	OBJECT(include_item, ",\"required\":[\"path\"]"),
	OBJECT(placed_source,
	       ",\"oneOf\":[{\"required\":[\"bind\"]},{\"required\":[\"profile\"]}]"),
	OBJECT(ignored_sources, ""),
	OBJECT(credential, ",\"required\":[\"source\",\"scope\"]"),
	OBJECT(mesh, ""),
	OBJECT(service, ",\"required\":[\"host\",\"port\",\"principal\"]"),
	OBJECT(test, ",\"oneOf\":[{\"required\":[\"profile\"]},{\"required\":[\"source\"]}]"),
	OBJECT(authorization, ",\"required\":[\"apiVersion\",\"kind\"]"),
	OBJECT(metadata, ""),
	OBJECT(spec, ""),
	OBJECT(selector, ""),
	OBJECT(rule, ""),
	OBJECT(to_item, ""),
	OBJECT(from_item, ""),
	OBJECT(operation, ""),
	OBJECT(peer, ""),
};

/* ---- printing ---- */

static void put_string(struct out *o, const char *s)
{
	out_json(o, s, strlen(s));
}

static void put_prop(struct out *o, const struct prop *p, bool first)
{
	out_text(o, first ? "" : ",");
	put_string(o, p->key);
	out_printf(o, ":{\"$ref\":\"#/$defs/%s\"", p->type);
	if (*p->about) {
		out_text(o, ",\"description\":");
		put_string(o, p->about);
	}
	out_text(o, "}");
}

static void put_object(struct out *o, const struct object *x)
{
	out_printf(o,
		   ",\n\"%s\":{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{",
		   x->name);
	for (size_t i = 0; i < x->n; i++)
		put_prop(o, &x->props[i], i == 0);
	out_printf(o, "}%s}", x->more);
}

/* Of the tables that the compiler itself reads by. */
static void put_limits(struct out *o)
{
	const char *sep = "";
	out_text(o, ",\n\"limits\":{\"type\":\"object\",\"additionalProperties\":false,"
		    "\"properties\":{");
#define X(field, key, octets, dflt)                                                                \
	out_printf(o, "%s\"%s\":{\"$ref\":\"#/$defs/%s\"}", sep, key,                              \
		   strcmp(key, "concurrent") == 0 ? "limit_at_once"                                \
		   : octets                       ? "limit_octets"                                 \
						  : "limit_events");                                                     \
	sep = ",";
	LIMITS(X)
#undef X
	out_text(o, "}}");
}

static void put_words(struct out *o)
{
	out_text(o, ",\n\"preset\":{\"enum\":[");
	for (size_t i = 0; preset_at(i); i++) {
		out_text(o, i ? "," : "");
		put_string(o, preset_at(i)->name);
	}
	out_text(o, "]},\n\"reason\":{\"enum\":[\"any\"");
#define X(name, text)                                                                              \
	if (strcmp(text, "allowed") != 0)                                                          \
		out_printf(o, ",\"%s\"", text);
	REASONS(X)
#undef X
	out_text(o, "]},\n\"lint_codes\":{\"type\":\"array\",\"items\":{\"enum\":[");
	for (size_t i = 0; lint_liftable(i); i++) {
		out_text(o, i ? "," : "");
		put_string(o, lint_liftable(i));
	}
	out_text(o, "]}}");
}

void schema_print(FILE *to)
{
	struct out o = { 0 };
	out_text(&o,
		 "{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\n"
		 "\"title\":\"cx policy\",\n"
		 "\"if\":{\"anyOf\":[{\"required\":[\"apiVersion\"]},{\"required\":[\"kind\"]}]},\n"
		 "\"then\":{\"$ref\":\"#/$defs/authorization\"},\n"
		 "\"else\":{\"$ref\":\"#/$defs/policy\"},\n"
		 "\"$defs\":{\n");
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		out_printf(&o, "%s\"%s\":%s", i ? ",\n" : "", values[i].name, values[i].schema);
	put_limits(&o);
	put_words(&o);
	for (size_t i = 0; i < sizeof(objects) / sizeof(objects[0]); i++)
		put_object(&o, &objects[i]);
	out_text(&o, "}}\n");
	fwrite(out_get(&o), 1, o.n, to);
	out_fini(&o);
}
