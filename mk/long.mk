# SPDX-License-Identifier: MIT
# Long runs of real programs on the software CPU, compared with what they print natively.
.PHONY: check-long
check-long: all tools
	@O=$(O) tests/long/run $(LONG_TESTS)
