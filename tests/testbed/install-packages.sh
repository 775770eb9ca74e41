#!/bin/sh
# Installs the Debian packages of packages.txt that are missing, and says so before it does. With `--demo` those that only
# tests need are left out.
set -eu
cd "$(dirname "$0")/../.."
missing=
left_out='^$'
[ "${1-}" != --demo ] || left_out='# tests only'
for package in $(sed "/$left_out/d; s/#.*//" packages.txt); do
  # A Docker of another origin will do, and Debian's would take its place.
  case $package in
    docker.io) ! command -v dockerd >/dev/null || continue ;;
    docker-compose) ! command -v docker-compose >/dev/null || continue ;;
  esac
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -z "$missing" ]; then
  echo 'All Debian packages of packages.txt are installed.'
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "Missing Debian packages:$missing. Run 'sudo make system' on Debian or Ubuntu." >&2
  exit 1
fi
echo "Installing Debian packages:$missing"
case $missing in *docker.io*) echo "(docker.io also starts the system's Docker service, where there is one to start it; it is not used here)" ;; esac
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq --no-remove --no-install-recommends $missing >/dev/null
echo 'Installed.'
