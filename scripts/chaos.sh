#!/usr/bin/env bash
# A million calls through 50 kills, 20 restarts of the database, ten minutes without it, a minute hung and a minute
# read-only. Takes about half an hour; `make test` runs the same with small numbers. Prints what came of it.
set -euo pipefail

cd "$(dirname "$0")/.."
exec env CHAPERONE_CHAOS=full scripts/with-postgres.sh \
  cargo test --locked --test chaperone -- --exact chaos::nothing_is_lost_and_nothing_is_twice_whatever_happens --nocapture
