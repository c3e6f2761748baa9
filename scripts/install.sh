#!/usr/bin/env bash
# Installs what is missing for one of the project's commands, or says exactly what to install.
#   scripts/install.sh run|test|bench
set -euo pipefail

cd "$(dirname "$0")/.."
purpose=${1:?say what for: run, test or bench}
node_version_min=18
rust_version_min=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

main() {
  require_rust
  find_missing
  ((${#packages[@]} == 0)) && return
  if install_packages; then
    find_missing
  fi
  ((${#packages[@]} == 0)) && return
  echo "Please install: ${packages[*]}" >&2
  echo "(names of Debian and Ubuntu packages; nodejs must be $node_version_min or newer, python3 3.11 or newer)" >&2
  exit 1
}

# Fills the array `packages` with what the purpose needs and the machine has not.
find_missing() {
  packages=()
  need build-essential c_compiler
  need curl have curl
  need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
  case $purpose in
    run) ;;
    test)
      need pkg-config have pkg-config
      need jq have jq
      need python3 python_is_recent
      need python3-venv python3 -c 'import ensurepip, venv'
      need nodejs node_is_recent
      need npm have npm
      need postgresql scripts/with-postgres.sh --bindir
      need pgbouncer have pgbouncer
      ;;
    bench)
      need nginx have nginx
      need python3 have python3
      ;;
    *)
      echo "install.sh: unknown purpose $purpose" >&2
      exit 2
      ;;
  esac
}

# need PACKAGE TEST...: PACKAGE is missing when TEST fails.
need() {
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || packages+=("$package")
}

have() {
  command -v "$1"
}

# A compiler without the C library's headers is no use.
c_compiler() {
  echo '#include <stdlib.h>
int main(void) { return 0; }' | cc -x c -o /dev/null -
}

# What the google-genai SDK asks for.
python_is_recent() {
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'
}

node_is_recent() {
  [ "$(node -p 'process.versions.node.split(".")[0]')" -ge "$node_version_min" ]
}

# Rust does not come from the distribution: its compiler is too old.
require_rust() {
  local version
  if ! version=$(cargo --version 2>/dev/null); then
    echo "cargo is missing. Install Rust $rust_version_min or newer from https://rustup.rs:" >&2
    echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2
    echo "and open a new shell, or run: . ~/.cargo/env" >&2
    exit 1
  fi
  version=$(echo "$version" | cut -d ' ' -f 2)
  if [ "$(printf '%s\n' "$rust_version_min" "$version" | sort -V | head -n 1)" != "$rust_version_min" ]; then
    echo "cargo is $version, and Rust $rust_version_min or newer is needed. Run: rustup update" >&2
    exit 1
  fi
  if [ "$purpose" = test ] && ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
    echo "rustfmt or clippy is missing. Run: rustup component add rustfmt clippy" >&2
    exit 1
  fi
}

install_packages() {
  local as_root=()
  command -v apt-get >/dev/null || return 1
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || return 1
    # Without a terminal nobody can type a password.
    if [ -t 0 ]; then
      echo "Installing ${packages[*]}; sudo may ask for your password."
      sudo -v || return 1
    else
      sudo -n true 2>/dev/null || return 1
    fi
    as_root=(sudo)
  fi
  echo "Installing: ${packages[*]}"
  "${as_root[@]}" sh -s -- "${packages[@]}" <<'ROOT'
set -eu
export DEBIAN_FRONTEND=noninteractive

# Two of the packages bring services with them that nobody here asked for. None is started, none is
# enabled, no PostgreSQL cluster is made, and the files that see to it are gone afterwards.
policy=/usr/sbin/policy-rc.d
no_cluster=/etc/postgresql-common/createcluster.d/chaperone.conf
if [ -e "$policy" ]; then policy=; fi
trap 'rm -f $policy $no_cluster' EXIT
if [ -n "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
case " $* " in *" postgresql "*)
  mkdir -p "${no_cluster%/*}"
  echo 'create_main_cluster = false' >"$no_cluster"
esac

apt-get update -q
apt-get install -y -q --no-install-recommends "$@"

case " $* " in *" nginx "*)
  if command -v systemctl >/dev/null; then systemctl disable nginx; fi
esac
ROOT
}

main
