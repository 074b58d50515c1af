-- SPDX-License-Identifier: Apache-2.0
-- The two things that HAProxy's rules cannot do: take the head of a CONNECT off a connection and
-- answer it, and speak CONNECT to a proxy. Decides nothing, and must never let a byte pass that the
-- rules around it have not judged: each action says in a variable that it is done, and the rules
-- refuse without it. Actions run again whenever bytes arrive; what was done is not done again.

local MAX_HEAD = 8192

-- The text up to the empty line, and its length with that line; nil: not there yet.
local function head_of(data)
	local at = data and data:find("\r\n\r\n", 1, true)
	if at then
		return data:sub(1, at + 1), at + 3
	end
end

-- The CONNECT that proxy.cfg hands on: sets txn.authority and txn.expect (what cx-spoa said must come
-- next), and takes the head away. Nothing is set unless it is just the head that proxy.cfg writes.
core.register_action("cx_connect_head", { "tcp-req" }, function(txn)
	if txn:get_var("txn.authority") then
		return
	end
	local head, length = head_of(txn.req:data())
	if not head or length > MAX_HEAD then
		return
	end
	local authority = head:match("^CONNECT ([!-~]+) HTTP/1%.[01]\r\n")
	local expect, more = head:match("\r\ncx%-expect: (%l+)\r\n(.*)")
	if not authority or not expect or more:find("cx-expect:", 1, true) then
		return
	end
	if txn.req:remove(0, length) ~= length then
		return
	end
	txn:set_var("txn.expect", expect)
	txn:set_var("txn.authority", authority)
end)

-- Tells the client that its tunnel is there; once.
core.register_action("cx_connected", { "tcp-req" }, function(txn)
	if txn:get_var("txn.connected") then
		return
	end
	local yes = "HTTP/1.1 200 Connection established\r\n\r\n"
	if txn.res:send(yes) == #yes then
		txn:set_var("txn.connected", true)
	end
end)
