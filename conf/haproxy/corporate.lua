-- SPDX-License-Identifier: Apache-2.0
-- What corporate.cfg cannot write as rules: puts the head of a CONNECT in front of what a client sends,
-- and takes the head of its answer off what comes back. Decides nothing, and must never let a byte of
-- the answer's head reach the client: each action says in a variable that it is done, and the rules
-- refuse without it. Actions run again whenever bytes arrive; what was done is not done again.

local MAX_HEAD = 8192

-- A variable of the agent's as one line of the head: what could end the line is no value.
local function line(txn, variable, field)
	local value = txn:get_var(variable)
	if value == nil then
		return ""
	end
	value = tostring(value)
	if not value:match("^[ -~]+$") then
		return nil
	end
	return field .. ": " .. value .. "\r\n"
end

core.register_action("cx_ask_proxy", { "tcp-req" }, function(txn)
	if txn:get_var("txn.asked_proxy") then
		return
	end
	local target = txn:get_var("txn.cx.target")
	local lines = {
		line(txn, "txn.cx.via", "cx-via"),
		line(txn, "txn.cx.via_name", "cx-via-name"),
		line(txn, "txn.cx.via_port", "cx-via-port"),
		line(txn, "txn.cx.auth", "proxy-authorization"),
		line(txn, "txn.id", "cx-id"),
	}
	if type(target) ~= "string" or not target:match("^[!-~]+$") or #lines ~= 5 then
		return
	end
	local head = "CONNECT " .. target .. " HTTP/1.1\r\nhost: " .. target .. "\r\n" .. table.concat(lines) .. "\r\n"
	if txn.req:prepend(head) == #head then
		txn:set_var("txn.asked_proxy", true)
	end
end)

core.register_action("cx_proxy_answer", { "tcp-res" }, function(txn)
	if txn:get_var("txn.through") then
		return
	end
	local data = txn.res:data()
	local at = data and data:find("\r\n\r\n", 1, true)
	if not at or at > MAX_HEAD or not data:match("^HTTP/1%.[01] 2%d%d[ \r]") then
		return
	end
	if txn.res:remove(0, at + 3) == at + 3 then
		txn:set_var("txn.through", true)
	end
end)
