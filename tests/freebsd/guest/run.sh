#!/bin/sh
# In the machine, as root: install what is missing, examine the host, call a function, run the tests; write what
# came of it onto the disk that waits for it, and power off. `status` there is 0 if everything was right.
# After a first boot without resource accounting it boots once more.
HERE=/skyisland
CD=$HERE/cidata
OUT=$HERE/out
PATH=/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin LC_ALL=C.UTF-8 HOME=/root ASSUME_ALWAYS_YES=yes
export PATH LC_ALL HOME ASSUME_ALWAYS_YES
mkdir -p $OUT

if [ "$(sysctl -n kern.racct.enable)" != 1 ] && [ ! -e $HERE/again ]; then
  touch $HERE/again
  echo kern.racct.enable=1 >> /boot/loader.conf
  printf 'mount -t cd9660 /dev/iso9660/cidata %s\nsh %s/run.sh > /dev/console 2>&1\n' $CD $CD >> /etc/rc.local
  exec shutdown -r now
fi

finish() {
  echo "$1" > $OUT/status
  for disk in /dev/vtbd?; do
    case $(dd if=$disk bs=512 count=1 2> /dev/null | tr -d '\000') in
    skyisland-out*) tar -cf - -C $OUT . | dd of=$disk obs=64k conv=osync 2> /dev/null ;;
    esac
  done
  sync
  exec shutdown -p now
}

code=0
step() { # what it is called, and the command
  case $(cat $CD/steps) in *" $1 "* | *" all "*) ;; *) return 0 ;; esac
  name=$1 begun=$(date +%s)
  shift
  (set -e; "$@") > $OUT/$name.txt 2>&1
  status=$?
  if [ $status = 0 ]; then said=right; else said="WRONG: exit status $status" code=1; fi
  echo "$name: $said, $(($(date +%s) - begun)) s" >> $OUT/log
}

install() {
  newest=$(command -v python3.14 || command -v python3.13 || command -v python3.12 || command -v python3.11 || :)
  if [ -z "$newest" ] || ! command -v git || ! command -v go; then
    pkg install git go python3 && python3=$(readlink -f /usr/local/bin/python3) && newest=$python3
    flavour=py$(echo "${python3##*python}" | tr -d .)
    pkg install "$flavour-sqlite3" "$flavour-msgspec"
  fi
  mkdir -p $HERE/src && tar -xf $CD/checkout.tar -C $HERE/src
  from=
  if [ -e $CD/wheels.tar ]; then
    mkdir -p $HERE/wheels && tar -xf $CD/wheels.tar -C $HERE/wheels && from="--no-index --find-links $HERE/wheels"
  fi
  $newest -m venv --system-site-packages $HERE/src/.venv
  $HERE/src/.venv/bin/pip install --disable-pip-version-check $from -e $HERE/src \
    pytest pytest-asyncio pytest-xdist hypothesis blockbuster nats-py pyte pyyaml
}

pool() {
  kldload -n zfs || : # the kernel may have it built in
  truncate -s 12g $HERE/pool
  zpool create -m $HERE/zfs skytest $HERE/pool
  if [ -n "$TEST_BASE" ]; then echo "base_sys_pkg_dir = \"$TEST_BASE\""; fi > $HERE/skyisland.toml
  printf '[filesystem]\nzfs_dataset = "skytest"\n' >> $HERE/skyisland.toml
}

TEST_ZPOOL=skytest TEST_PATIENCE_S=900 TEST_BASE=
# Installation media leave the base system here; without it, it comes from the network.
if [ -e /usr/freebsd-dist/base.txz ]; then TEST_BASE=/usr/freebsd-dist; fi
export TEST_ZPOOL TEST_PATIENCE_S TEST_BASE

{ freebsd-version -ku; zfs version; uname -a; } > $OUT/versions.txt 2>&1
step install install
step pool pool
[ $code = 0 ] || finish 1
cd $HERE/src
bin=.venv/bin
step doctor $bin/skyisland -c $HERE/skyisland.toml doctor --full
step demo $bin/python examples/demo.py --dataset skytest ${TEST_BASE:+--base $TEST_BASE}
tests() { # what the step is called, and the files
  name=$1
  shift
  step $name $bin/pytest -q -p no:cacheprovider --junitxml=$OUT/$name.xml "$@"
}
tests contract tests/contract
tests island tests/real/test_whole_path.py tests/freebsd/test_whole_island.py tests/faults/test_killed_anywhere.py
tests unit tests/unit tests/api
step leftovers sh -c '! { jls -d name; zfs list -Ho name -r skytest; rctl; mount -p; } | grep -e sky-[0-9a-f]*-[0-9a-f]'
finish $code
