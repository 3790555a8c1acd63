-- For wrk, as loadtest.py runs it: steps sessions in turn. Arguments: content type, file with the body, session ids.
local requests, i = {}, 0

function init(args)
  local file = assert(io.open(args[2], "rb"))
  local body = file:read("*a")
  file:close()
  for k = 3, #args do
    requests[#requests + 1] = wrk.format("POST", "/sessions/" .. args[k] .. "/step", {["Content-Type"] = args[1]}, body)
  end
end

function request()
  i = i % #requests + 1
  return requests[i]
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "max_us": %d, "failed": %d}\n', summary.requests,
    summary.duration / 1e6, latency:percentile(50), latency:percentile(99), latency.max,
    e.connect + e.read + e.write + e.status + e.timeout))
end
