-- wrk's script: sends the credentials of a file in turn, says at the end what happened in one line of JSON.
-- Environment: CREDENTIALS a file with one a line; FROM how many of them to pass over, LIMIT how many to take; ONCE "1" to
-- end when each was sent once; TARGET the path; BODY the bytes of a request's body, 0 for GET.
local main
local requests, count, sent = {}, 0, 0
local once = os.getenv("ONCE") == "1"
ran_out = 0

function setup(thread)
    main = thread
end

function init()
    local from, limit, size = tonumber(os.getenv("FROM")), tonumber(os.getenv("LIMIT")), tonumber(os.getenv("BODY"))
    local target, body = os.getenv("TARGET"), size > 0 and string.rep("b", size) or nil
    for credential in io.lines(os.getenv("CREDENTIALS")) do
        if count == limit then
            break
        end
        if from > 0 then
            from = from - 1
        else
            count = count + 1
            requests[count] = wrk.format(body and "POST" or "GET", target, { authorization = "Bearer " .. credential }, body)
        end
    end
end

function request()
    sent = sent + 1
    if sent > count then
        if once then
            ran_out = 1
            wrk.thread:stop()
        end
        sent = 1
    end
    return requests[sent]
end

function done(summary, latency)
    local errors = summary.errors
    local broken = errors.connect + errors.read + errors.write + errors.timeout
    io.write(string.format('\nRESULT {"requests":%d,"seconds":%f,"bad":%d,"p50_us":%d,"p99_us":%d,"ran_out":%d}\n',
        summary.requests, summary.duration / 1e6, broken + errors.status,
        latency:percentile(50), latency:percentile(99), main:get("ran_out")))
end
