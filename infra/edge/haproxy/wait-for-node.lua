-- Action wait_for_node of haproxy.cfg: where no node of the backend `nodes` is well, waits 2, 4 and
-- 8 seconds for one before the request goes on, to a node or to a 503. Where others are well,
-- HAProxy asks one of these at once, and this is not called.
core.register_action("wait_for_node", { "http-req" }, function(txn)
    for _, seconds in ipairs({ 2, 4, 8 }) do
        core.sleep(seconds)
        if txn.f:nbsrv("nodes") > 0 then
            return
        end
    end
end)
