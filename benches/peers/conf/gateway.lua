-- What a team writes in nginx to do mintgate's work: two shared dictionaries, one of credentials that were verified and
-- one of minted tokens. RS256 is OpenSSL's, called through LuaJIT's FFI.
local ffi = require("ffi")
local json = require("cjson.safe")
local decode = require("ngx.base64").decode_base64url
local crypto = ffi.C

ffi.cdef([[
    void *d2i_PUBKEY(void **out, const unsigned char **in, long length);
    void *EVP_MD_CTX_new(void);
    void EVP_MD_CTX_free(void *context);
    void *EVP_sha256(void);
    int EVP_DigestVerifyInit(void *context, void **key_context, const void *digest, void *engine, void *key);
    int EVP_DigestVerify(void *context, const char *signature, size_t signature_length, const char *data, size_t length);
]])

local key, issuer_port
local M = {}

-- Runs in the master; the worker inherits the key.
function M.start(path, port)
    local file = assert(io.open(path, "rb"))
    local der = file:read("*a")
    file:close()
    local at = ffi.new("const unsigned char *[1]", { ffi.cast("const unsigned char *", der) })
    key = crypto.d2i_PUBKEY(nil, at, #der)
    assert(key ~= nil, "the public key cannot be read")
    issuer_port = port
end

local function signed(data, signature)
    local context = crypto.EVP_MD_CTX_new()
    local good = crypto.EVP_DigestVerifyInit(context, nil, crypto.EVP_sha256(), nil, key) == 1
        and crypto.EVP_DigestVerify(context, signature, #signature, data, #data) == 1
    crypto.EVP_MD_CTX_free(context)
    return good
end

-- The session of a credential and the second at which it ends, or nothing.
local function verify(credential)
    local head, payload, signature = credential:match("^([%w_-]+)%.([%w_-]+)%.([%w_-]+)$")
    signature = signature and decode(signature)
    if not signature or not signed(head .. "." .. payload, signature) then
        return nil
    end
    local header, claims = json.decode(decode(head) or ""), json.decode(decode(payload) or "")
    local now = ngx.time()
    if not header or header.alg ~= "RS256" or not claims or type(claims.sid) ~= "string" then
        return nil
    end
    if type(claims.exp) ~= "number" or claims.exp <= now or (claims.nbf or 0) > now + 5 then
        return nil
    end
    return claims.sid, claims.exp
end

local function mint(session)
    local socket = ngx.socket.tcp()
    socket:settimeout(5000)
    if not socket:connect("127.0.0.1", issuer_port) then
        return nil
    end
    socket:send({ "POST /v1/sessions/", session, "/tokens/peers HTTP/1.1\r\nHost: issuer\r\nContent-Length: 2\r\n\r\n{}" })
    local status, length = socket:receive("*l"), 0
    repeat
        local line = socket:receive("*l")
        length = line and tonumber(line:lower():match("^content%-length:%s*(%d+)")) or length
    until not line or line == ""
    local answer = json.decode(socket:receive(length) or "")
    socket:setkeepalive(60000, 64)
    return status and status:find(" 200 ", 1, true) and answer and answer.jwt
end

function M.admit()
    local header = ngx.var.http_authorization
    local credential = header and header:match("^Bearer (.+)$")
    if not credential then
        return ngx.exit(401)
    end
    local verified, minted = ngx.shared.verified, ngx.shared.minted
    local session = verified:get(credential)
    if not session then
        local ends
        session, ends = verify(credential)
        if not session then
            return ngx.exit(401)
        end
        verified:set(credential, session, ends - ngx.time())
    end
    local value = minted:get(session)
    if not value then
        local token = mint(session)
        if not token then
            return ngx.exit(502)
        end
        value = "Bearer " .. token
        minted:set(session, value, 3000)
    end
    ngx.req.set_header("Authorization", value)
end

return M
