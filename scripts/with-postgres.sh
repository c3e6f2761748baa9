#!/usr/bin/env bash
# Runs a command beside a throw-away PostgreSQL cluster and removes the cluster afterwards.
#   scripts/with-postgres.sh CMD...     CMD finds the cluster in CHAPERONE_TEST_POSTGRES_URL and the
#                                       server's binaries in CHAPERONE_TEST_POSTGRES_BIN
#   scripts/with-postgres.sh --bindir   prints where the server's binaries are; fails when nowhere
set -euo pipefail

. "$(dirname "$0")/processes.sh"

# Not local to any function: the trap reads them last of all.
bin='' dir='' port=''

main() {
  if ! bin=$(find_bin); then
    echo "PostgreSQL's server binaries (initdb, pg_ctl) are not installed" >&2
    exit 1
  fi
  if [ "${1:?say which command to run}" = --bindir ]; then
    echo "$bin"
    exit
  fi
  # Under /tmp whatever TMPDIR says: the path of a socket may not be longer than 107 bytes.
  dir=$(mktemp -d /tmp/chaperone-postgres.XXXXXX)
  trap remove_cluster EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
  make_cluster
  start_cluster
  export CHAPERONE_TEST_POSTGRES_URL="postgres://postgres@127.0.0.1:$port/postgres"
  export CHAPERONE_TEST_POSTGRES_BIN="$bin"
  "$@"
}

# What pg_config names, else the newest that Debian's packages have put down.
find_bin() {
  local candidate
  for candidate in "$(pg_config --bindir 2>/dev/null)" $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV); do
    if [ -x "$candidate/initdb" ] && [ -x "$candidate/postgres" ]; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

# PostgreSQL refuses to run as root.
as_postgres() {
  if [ "$(id -u)" = 0 ]; then
    (cd "$dir" && runuser -u postgres -- "$@")
  else
    "$@"
  fi
}

make_cluster() {
  if [ "$(id -u)" = 0 ]; then
    chown postgres: "$dir"
  fi
  as_postgres "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --no-locale --no-sync >"$dir/initdb.log" 2>&1 || {
    cat "$dir/initdb.log" >&2
    return 1
  }
  # Members of this role must say their password; everybody else is trusted.
  as_postgres sed -i '1i host all +by_password 127.0.0.1/32 scram-sha-256' "$dir/data/pg_hba.conf"
  # Nothing here has to survive a power cut.
  cat >>"$dir/data/postgresql.conf" <<CONF
fsync = off
full_page_writes = off
max_connections = 200
listen_addresses = '127.0.0.1'
unix_socket_directories = '$dir'
CONF
}

# Somebody else may take the port between the look and the start, so a few are tried.
start_cluster() {
  local attempt
  for attempt in 1 2 3 4 5; do
    pick_port port
    if as_postgres "$bin/pg_ctl" -D "$dir/data" -l "$dir/server.log" -o "-p $port" -w start >/dev/null; then
      return
    fi
  done
  echo "PostgreSQL did not start in $attempt attempts:" >&2
  tail -n 20 "$dir/server.log" >&2
  return 1
}

remove_cluster() {
  local status=$?
  as_postgres "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$dir"
  exit "$status"
}

main "$@"
