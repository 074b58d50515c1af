#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Preset files -> a C source that holds them, sorted by name: the same files give the same octets.
# Also the file of hosts that lint knows.
# Usage: embed.sh VERSION-FILE KNOWN-HOSTS PRESET.yaml... > presets.gen.c
set -eu
LC_ALL=C
export LC_ALL

version=$(cat "$1")
known=$2
shift 2

# The lines of a file as C strings.
quoted() {
	sed -e 's/[\\"]/\\&/g' -e 's/^/\t  "/' -e 's/$/\\n"/' "$1"
}

echo '/* Made from shared/compile/presets by embed.sh. */'
echo '#include <stddef.h>'
echo '#include "shared/compile/compile.h"'
echo "const char presets_version[] = \"$version\";"
echo 'const char known_hosts_text[] ='
quoted "$known"
echo '	;'
echo 'static const struct preset_info presets[] = {'
for file in $(printf '%s\n' "$@" | sort); do
	printf '\t{ "%s",\n' "$(basename "$file" .yaml)"
	quoted "$file"
	printf '\t},\n'
done
echo '};'
echo 'const struct preset_info *preset_at(size_t i)'
echo '{'
echo '	return i < sizeof(presets) / sizeof(presets[0]) ? &presets[i] : NULL;'
echo '}'
