#!/usr/bin/env bash
# Start Prometheus on a run's metrics, or on an exporter's (llmi metrics), until Ctrl-C. Graphs, targets, alerts in the browser.
#   ops/prometheus.sh RUN_FOLDER | --metrics URL  [--port 9090] [--host 127.0.0.1] [--every 5s] [--dir DIR]
# With a --host other than loopback it requires --web-config FILE, Prometheus' own file with basic_auth_users:
#   basic_auth_users: {someone: BCRYPT_HASH}        (htpasswd -nB someone)
# Runs the prometheus on PATH; without one, on Debian or Ubuntu, downloads the distribution's, which needs no root.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
fail() { echo "prometheus: $*" >&2; exit 2; }
run='' url='' port=9090 host=127.0.0.1 every=5s data='' web=''
while [ $# -gt 0 ]; do
    case $1 in
    --metrics | --port | --host | --every | --dir | --web-config) [ $# -gt 1 ] || fail "$1 needs a value" ;;&
    --metrics) url=${2%/}; url=${url%/metrics}; shift 2 ;;
    --port) port=$2; shift 2 ;;
    --host) host=$2; shift 2 ;;
    --every) every=$2; shift 2 ;;
    --dir) data=$2; shift 2 ;;
    --web-config) web=$2; shift 2 ;;
    -h | --help) sed -n '2,6s/^# \?//p' "$0"; exit ;;
    -*) fail "no option $1; -h lists them" ;;
    *) run=$1; shift ;;
    esac
done
cache=${LLMI_CACHE:-.cache}/prometheus
if [ -n "$run" ]; then
    [ -f "$run/endpoints.json" ] || fail "$run/endpoints.json does not exist; name the folder of a run that goes on, such as runs/NAME"
    url=$(sed -n 's/.*"metrics": *"\([^"]*\)".*/\1/p' "$run/endpoints.json")
    data=${data:-$run/prometheus}
fi
[ -n "$url" ] || fail "no metrics are named; give a run's folder, or --metrics URL of llmi metrics"
data=${data:-$cache/data}
case $host in
127.* | localhost | ::1) ;;
*) grep -qs '^basic_auth_users:' "$web" ||
    fail "--host $host: others could read the metrics; name a --web-config FILE with basic_auth_users (-h)" ;;
esac

program=$(command -v prometheus || true)
if [ -z "$program" ]; then
    program=$cache/usr/bin/prometheus
    if [ ! -x "$program" ]; then
        command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
            fail "no prometheus on PATH, and no apt-get to download it; install it"
        echo "downloading Prometheus into $cache" >&2
        mkdir -p "$cache/deb"
        if [ "$(id -u)" = 0 ] && ! apt-cache show prometheus >/dev/null 2>&1; then apt-get update -qq; fi
        pages=$(apt-cache depends prometheus | sed -n 's/^ *Depends: \(\(libjs\|fonts\)-.*\)/\1/p')
        # The pages' own libraries; d3 belongs to one of them.
        # shellcheck disable=SC2086
        (cd "$cache/deb" && apt-get download -qq prometheus $pages libjs-d3) ||
            fail "apt-get found no prometheus; run apt-get update as root, or put one on PATH"
        for package in "$cache"/deb/*.deb; do dpkg-deb -x "$package" "$cache"; done
        rm -r "$cache/deb"
    fi
fi
mkdir -p "$data"
sed "s#http://metrics:9540#$url#; s#: 5s\$#: $every#" "$here/prometheus/prometheus.yml" >"$data/prometheus.yml"
cp "$here/prometheus/alerts.yml" "$data/"
assets=()
[ -d "$cache/usr/share/prometheus/web" ] && [ "$program" = "$cache/usr/bin/prometheus" ] &&
    assets=(--web.local-assets="$cache/usr/share/prometheus/web")
echo "Prometheus on $url: http://$host:$port/graph; data in $data" >&2
options=()
[ -n "$web" ] && options=(--web.config.file="$web")
exec "$program" --config.file="$data/prometheus.yml" --storage.tsdb.path="$data/tsdb" --log.level=warn \
    --web.listen-address="$host:$port" "${options[@]}" "${assets[@]}"
