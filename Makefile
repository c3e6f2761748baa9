# The project's commands. Each is one script, so that it can also be run without make.

.PHONY: help run test bench

help:
	@echo "make run    build Chaperone and start it in front of the bundled Gemini simulator"
	@echo "            (or of CHAPERONE_UPSTREAM__URL, when that is set)"
	@echo "make test   everything that CI checks, with a PostgreSQL of its own"
	@echo "make bench  latency and CPU of Chaperone beside nginx and no proxy at all, and of the guardrail engine;"
	@echo "            LABELLED=DIR also measures the guardrails on the labelled texts in DIR"

run:
	@scripts/run.sh

test:
	@scripts/test.sh

bench:
	@bench/run.sh
	@bench/guardrails.sh $(LABELLED)
