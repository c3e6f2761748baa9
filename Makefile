# The project's commands. Each is one script, so that it can also be run without make.

.PHONY: help run test bench chaos

help:
	@echo "make run    build Chaperone and start it in front of the bundled Gemini simulator"
	@echo "            (or of CHAPERONE_UPSTREAM__URL, when that is set)"
	@echo "make test   everything that CI checks, with a PostgreSQL of its own"
	@echo "make chaos  a million calls through kills, restarts and outages: is every one recorded, once?"
	@echo "make bench  latency and CPU of Chaperone beside nginx and no proxy at all, and of the guardrail engine;"
	@echo "            LABELLED=DIR also measures the guardrails on the labelled texts in DIR"

run:
	@scripts/run.sh

test:
	@scripts/test.sh

bench:
	@bench/run.sh
	@bench/guardrails.sh $(LABELLED)

chaos:
	@scripts/chaos.sh
