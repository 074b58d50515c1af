#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A task's life on a gateway, from its link to its end; for orchestrators that start one command a
# microVM. The address is given to the next task only after `cxctl unbind` has said 0, and never before.
#
# usage: run-task.sh TASK PROFILE LINK GATEWAY/LEN ADDRESS COMMAND...
#   COMMAND is the microVM: it gets the link's name in CX_LINK and the address in CX_ADDRESS
# environment: CXCTL (cxctl), CXCTL_FLAGS, CX_TAP_UP (/usr/lib/cx/cx-tap-up), CX_MAKE_LINK (a TAP)
set -eu

if [ $# -lt 6 ]; then
	sed -n 's/^# usage: /usage: /p' "$0" >&2
	exit 2
fi
task=$1 profile=$2 link=$3 gateway=$4 address=$5
shift 5
cxctl=${CXCTL:-cxctl}
tap_up=${CX_TAP_UP:-/usr/lib/cx/cx-tap-up}

make_link() {
	if [ -n "${CX_MAKE_LINK:-}" ]; then
		sh -c "$CX_MAKE_LINK"
	else
		ip tuntap add dev "$link" mode tap
	fi
}

# Whatever happened, the address comes back clean, or is kept from everybody else.
give_back() {
	# shellcheck disable=SC2086 # flags are words
	if ! $cxctl unbind --task "$task" --wait 5s ${CXCTL_FLAGS:-}; then
		echo "run-task: $address must not be given away yet: run unbind again" >&2
		ip link set "$link" down 2>/dev/null || :
		exit 3
	fi
	ip link del "$link" 2>/dev/null || :
}

make_link
trap 'give_back' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# Bind before the link is up: its first packet is already judged as the task's.
# shellcheck disable=SC2086
$cxctl bind "$address" --if "$link" --task "$task" --profile "$profile" ${CXCTL_FLAGS:-}
"$tap_up" "$link" "$gateway"
CX_LINK=$link CX_ADDRESS=$address "$@"
