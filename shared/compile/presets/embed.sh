#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Preset files -> a C source that holds them, sorted by name: the same files give the same octets.
# Usage: embed.sh VERSION-FILE PRESET.yaml... > presets.gen.c
set -eu
LC_ALL=C
export LC_ALL

version=$(cat "$1")
shift

echo '/* Made from shared/compile/presets by embed.sh. */'
echo '#include <stddef.h>'
echo '#include "shared/compile/compile.h"'
echo "const char presets_version[] = \"$version\";"
echo 'static const struct preset_info presets[] = {'
for file in $(printf '%s\n' "$@" | sort); do
	printf '\t{ "%s",\n' "$(basename "$file" .yaml)"
	sed -e 's/[\\"]/\\&/g' -e 's/^/\t  "/' -e 's/$/\\n"/' "$file"
	printf '\t},\n'
done
echo '};'
echo 'const struct preset_info *preset_at(size_t i)'
echo '{'
echo '	return i < sizeof(presets) / sizeof(presets[0]) ? &presets[i] : NULL;'
echo '}'
