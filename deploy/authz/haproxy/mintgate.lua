-- Asks mintgate about a request, and does to it what the answer says. Only an answer with 200 lets it pass: then alone
-- txn.mintgate is "ok", without which haproxy.cfg denies. After an error in here HAProxy itself would go on.
local ASK = "http://127.0.0.1:6473/authz/original"
local PATIENCE = 10000 -- ms

-- Of the connection or the message, on both ways.
local HOP = {}
for name in ("connection keep-alive proxy-connection te trailer transfer-encoding content-length expect host"):gmatch("%S+") do
  HOP[name] = true
end

-- What of an answer is about the answer.
local OWN = { ["cache-control"] = true, ["content-type"] = true, date = true }

local function lines(values)
  local list = {}
  for at = 0, #values do
    list[#list + 1] = values[at]
  end
  return list
end

local function refuse(txn, answer)
  local reply = txn:reply()
  if answer.status and answer.status >= 400 then
    reply:set_status(answer.status)
    for name, values in pairs(answer.headers) do
      if not HOP[name] then
        for _, value in ipairs(lines(values)) do
          reply:add_header(name, value)
        end
      end
    end
    reply:set_body(answer.body or "")
  else
    reply:set_status(503)
  end
  txn:done(reply)
end

core.register_action("mintgate", { "http-req" }, function(txn)
  local headers = {}
  for name, values in pairs(txn.http:req_get_headers()) do
    if not HOP[name] then
      headers[name] = lines(values)
    end
  end
  local scheme = txn.f:ssl_fc() == 1 and "https" or "http"
  -- What the caller asked for, in the place of whatever the caller says of it.
  headers["x-original-method"] = { txn.sf:method() }
  headers["x-original-url"] = { scheme .. "://" .. txn.sf:req_fhdr("host") .. txn.sf:pathq() }
  local asked, answer = pcall(function()
    return core.httpclient():get({ url = ASK, headers = headers, timeout = PATIENCE })
  end)
  if not asked or not answer or answer.status ~= 200 then
    return refuse(txn, asked and answer or {})
  end
  for name, values in pairs(answer.headers) do
    if not HOP[name] and not OWN[name] then
      -- An empty one is one to remove.
      local value = values[0]
      if value == nil or value == "" then
        txn.http:req_del_header(name)
      else
        txn.http:req_set_header(name, value)
      end
    end
  end
  -- The last thing of all: what comes before it was done.
  txn:set_var("txn.mintgate", "ok")
end, 0)
