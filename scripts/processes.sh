# Sourced by the scripts that keep servers running: ports, start, readiness, clean stop.
# shellcheck shell=bash

# Every server that `start` began and nobody has stopped yet, in the order of their start.
servers=()
# Every port that `pick_port` gave out; the server may not have taken it yet.
picked=" "

# True when something listens on ADDRESS (host:port).
port_taken() {
  local host=${1%:*} port=${1##*:}
  host=${host#[}
  host=${host%]}
  (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null
}

# Sets the variable NAME to a free port. Below 32768, where outgoing connections do not roam.
pick_port() {
  local candidate
  while :; do
    candidate=$((20000 + RANDOM % 12000))
    [[ $picked == *" $candidate "* ]] && continue
    port_taken "127.0.0.1:$candidate" && continue
    picked+="$candidate "
    printf -v "$1" '%s' "$candidate"
    return
  done
}

# Starts COMMAND... in a session of its own, so that Ctrl-C reaches this script and not the server,
# with its output in the file LOG. Leaves its process id in $started.
start() {
  local log=$1
  shift
  setsid "$@" >"$log" 2>&1 </dev/null &
  started=$!
  servers+=("$started")
}

# Waits until URL answers with success; fails at once when process PID ends, and after 30 s.
wait_until_ready() {
  local url=$1 pid=$2 log=$3 deadline=$((SECONDS + 30))
  until curl -fsS --noproxy '*' --max-time 2 -o /dev/null "$url" 2>/dev/null; do
    if ! kill -0 "$pid" 2>/dev/null || ((SECONDS > deadline)); then
      echo "$url does not answer. The last lines of $log:" >&2
      tail -n 20 "$log" >&2
      return 1
    fi
    sleep 0.1
  done
}

# Asks process PID to end and returns its status. It drains for 30 s at most; after 40 s it is killed.
stop() {
  local pid=$1 deadline=$((SECONDS + 40)) other others=()
  kill -TERM "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null; do
    if ((SECONDS > deadline)); then
      kill -KILL "$pid" 2>/dev/null || true
    fi
    sleep 0.05
  done
  for other in "${servers[@]}"; do
    [ "$other" = "$pid" ] || others+=("$other")
  done
  servers=("${others[@]}")
  wait "$pid"
}

# Stops every server still running, the last started first: the proxy goes before its upstream.
stop_all() {
  while ((${#servers[@]} > 0)); do
    stop "${servers[-1]}" || true
  done
}
