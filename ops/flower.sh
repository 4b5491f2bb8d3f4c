#!/usr/bin/env bash
# Start Flower (workers, tasks, queues in the browser) on a run's Redis, or on any, until Ctrl-C.
#   ops/flower.sh [RUN_FOLDER | --redis URL] [--port 5555] [--host 127.0.0.1]
# Without either it takes LLMI_REDIS_URL, the place for a URL with a password. With a --host other than loopback it
# requires FLOWER_BASIC_AUTH=user:password.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
python=$here/../.venv/bin/python
fail() { echo "flower: $*" >&2; exit 2; }
run='' redis='' port=5555 host=127.0.0.1
while [ $# -gt 0 ]; do
    case $1 in
    --redis | --port | --host) [ $# -gt 1 ] || fail "$1 needs a value" ;;&
    --redis) redis=$2; shift 2 ;;
    --port) port=$2; shift 2 ;;
    --host) host=$2; shift 2 ;;
    -h | --help) sed -n '2,5s/^# \?//p' "$0"; exit ;;
    -*) fail "no option $1; -h lists them" ;;
    *) run=$1; shift ;;
    esac
done
[ -x "$python" ] || fail "no .venv here; run ops/install.sh [cpu|gpu] first"
if [ -n "$run" ]; then
    [ -f "$run/endpoints.json" ] || fail "$run/endpoints.json does not exist; name the folder of a run that goes on, such as runs/NAME"
    export LLMI_CONFIG=$run/config.json
    redis=${LLMI_REDIS_URL:-$(sed -n 's/.*"redis": *"\([^"]*\)".*/\1/p' "$run/endpoints.json")}
fi
export LLMI_REDIS_URL=${redis:-${LLMI_REDIS_URL:-}}
[ -n "$LLMI_REDIS_URL" ] || fail "no Redis is named; give a run's folder, or --redis URL, or set LLMI_REDIS_URL"
case $host in
127.* | localhost | ::1) ;;
*) [ -n "${FLOWER_BASIC_AUTH:-}" ] || fail "--host $host: others could stop workers; set FLOWER_BASIC_AUTH=user:password" ;;
esac
echo "Flower: http://$host:$port" >&2
export PYTHONSAFEPATH=1 PYTHONUTF8=1 # nothing is imported from where this was called
exec "$python" -m workers.process.program workers.celery_app.app --quiet flower --address="$host" --port="$port" --logging=warning \
    --tasks_columns=name,routing_key,state,runtime,worker,args,result,received
