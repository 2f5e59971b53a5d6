-- A JSON POST, and the result as one line of JSON. With BENCH_SPREAD=n the requests
-- go in turn to n functions, whose paths end with -0 to -(n-1).
wrk.method = "POST"
wrk.body = '{"name":"Ada"}'
wrk.headers["Content-Type"] = "application/json"
local key = os.getenv("BENCH_KEY_FILE")
if key then
  wrk.headers["Authorization"] = "Bearer " .. io.open(key):read("*l")
end
local spread = tonumber(os.getenv("BENCH_SPREAD") or "")
if spread then
  local requests, next = {}, 0
  function init()
    for i = 1, spread do
      requests[i] = wrk.format(nil, wrk.path .. "-" .. (i - 1))
    end
  end
  function request()
    next = next % spread + 1
    return requests[next]
  end
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests":%d,"micros":%d,"p50":%.1f,"p99":%.1f,"errors":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
