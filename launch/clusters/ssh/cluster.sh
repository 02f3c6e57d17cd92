#!/bin/bash
# A Ray cluster on hosts that you reach over SSH. On each lies this checkout at the same path, with its .venv (and the
# extra `ray`).
#
#   launch/clusters/ssh/cluster.sh start launch/clusters/ssh/hosts.txt
#   ssh HEAD, and in the checkout, with RAY_AUTH_MODE=token:
#   phalanx train configs/mnist.yaml cluster.kind=ray cluster.ray.address=auto cluster.workers=2 \
#       strategy.name=multi_worker_mirrored run.dir=SHARED_FOLDER
#   launch/clusters/ssh/cluster.sh stop launch/clusters/ssh/hosts.txt
#
# `start` again brings back the hosts that were lost; those that run are left alone.
set -euo pipefail

usage="usage: $0 start|status|stop HOSTS [CHECKOUT]"
action=${1:?$usage}
hosts=${2:?$usage}
checkout=${3:-$PWD}
port=${PHALANX_RAY_PORT:-6379}
ssh=${PHALANX_SSH:-ssh -o BatchMode=yes -o ConnectTimeout=10}

names=()
addresses=()
while read -r name address rest; do
    case "$name" in '' | '#'*) continue ;; esac
    if [ -z "$address" ] || [ -n "$rest" ]; then
        echo "$hosts: '$name $address $rest' must be a host and its address: add the address" >&2
        exit 2
    fi
    names+=("$name")
    addresses+=("$address")
done <"$hosts"
if [ ${#names[@]} -eq 0 ]; then
    echo "$hosts lists no host: add one a line" >&2
    exit 2
fi

# The command comes over standard input, so that no token is seen in a list of processes.
on() {
    # shellcheck disable=SC2086
    $ssh "$1" bash -s
}

prelude=$(
    # shellcheck disable=SC2016
    printf 'set -eu\ncd %q\nPATH=$PWD/.venv/bin:$PATH\nexport RAY_AUTH_MODE=token\n' "$checkout"
)

start() {
    # One token for all; without it no host joins. It is made once, on this machine.
    local token_file=$HOME/.ray/auth_token
    if [ ! -s "$token_file" ]; then
        (umask 077 && mkdir -p "$HOME/.ray" && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$token_file")
    fi
    local failed=0 role
    for number in "${!names[@]}"; do
        role="--address=${addresses[0]}:$port"
        if [ "$number" -eq 0 ]; then
            role="--head --port=$port --include-dashboard=false"
        fi
        if ! {
            echo "$prelude"
            echo "umask 077; mkdir -p ~/.ray"
            echo "echo $(cat "$token_file") >~/.ray/auth_token"
            echo "pgrep -u \"\$(id -u)\" -f 'raylet/raylet .*--gcs-address=[^ ]*:$port( |\$)' >/dev/null && exit 0"
            echo "ray start --node-ip-address=${addresses[$number]} $role --disable-usage-stats </dev/null"
        } | on "${names[$number]}"; then
            echo "${names[$number]}: Ray did not start" >&2
            failed=1
            # Without a head nobody can join.
            [ "$number" -ne 0 ] || exit 3
        fi
    done
    return "$failed"
}

case "$action" in
start) start ;;
status) { echo "$prelude"; echo "ray status --address=${addresses[0]}:$port"; } | on "${names[0]}" ;;
stop)
    for number in "${!names[@]}"; do
        { echo "$prelude"; echo "ray stop"; } | on "${names[$number]}" || echo "${names[$number]} was not reached" >&2
    done
    ;;
*)
    echo "$usage" >&2
    exit 2
    ;;
esac
