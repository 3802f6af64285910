-- Stands in for Clerk's Backend API: POST /v1/sessions/{id}/tokens/{template} answers with a token that names the session.
-- Its signature is not a real one: nobody here checks it, and signing would measure the issuer.
local base64url = require("ngx.base64").encode_base64url
local HEAD = base64url('{"alg":"RS256","cat":"cl_B7d4PD222AAA","kid":"ins_peers","typ":"JWT"}')
local SIGNATURE = base64url(string.rep("s", 256))
local M = {}

function M.mint()
    local session, template = ngx.var.uri:match("^/v1/sessions/([^/]+)/tokens/([^/]+)$")
    if not session or ngx.req.get_method() ~= "POST" then
        return ngx.exit(404)
    end
    ngx.req.read_body()
    local now = ngx.time()
    local claims = string.format(
        '{"iss":"https://clerk.peers.test","sub":"user_of_%s","sid":"%s","template":"%s","role":"user",'
            .. '"iat":%d,"nbf":%d,"exp":%d}',
        session, session, template, now, now - 5, now + 3300)
    ngx.header["Content-Type"] = "application/json"
    local answer = '{"object":"token","jwt":"' .. HEAD .. "." .. base64url(claims) .. "." .. SIGNATURE .. '"}'
    ngx.header["Content-Length"] = #answer
    ngx.print(answer)
end

function M.sink()
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    local answer = tostring(body and #body or 0)
    ngx.header["Content-Length"] = #answer
    ngx.print(answer)
end

return M
