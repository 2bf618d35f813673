"""Scripts in Lua that read and change items in Valkey; the server runs each of them alone and whole."""

from newcomer.store.states import KEPT

READ = """
local found = {}
for n = 1, #KEYS, 4 do
  local noted = redis.call('HMGET', KEYS[n], 'version', 'events_checksum')
  local ids = redis.call('LRANGE', KEYS[n + 3], 0, -1)
  local rows, payloads = {}, {}
  if #ids > 0 then
    rows = redis.call('HMGET', KEYS[n + 1], unpack(ids))
    payloads = redis.call('HMGET', KEYS[n + 2], unpack(ids))
    for i = 1, #ids do payloads[i] = payloads[i] and string.sub(payloads[i], 1, tonumber(ARGV[1])) end
  end
  found[#found + 1] = {noted[1], noted[2], ids, rows, payloads}
end
return found
"""
"""Of items by their four keys: version, checksum, ids of the latest events, their rows and values (the first ARGV[1] bytes)."""

WRITE = """
local late, starts, at = {}, {}, 3
for n = 4, #KEYS, 4 do
  local item, version, deleted = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local is_late = (redis.call('HGET', KEYS[n], 'version') or '') ~= version
  is_late = is_late or (version == '' and (redis.call('HGET', KEYS[3], item) or '') ~= deleted)
  starts[#starts + 1] = at
  if is_late then
    late[#late + 1] = #starts - 1
    starts[#starts] = false
  end
  local count = tonumber(ARGV[at + 11])
  for e = at + 12, at + 11 + 3 * count, 3 do
    if not is_late and redis.call('HEXISTS', KEYS[n + 1], ARGV[e]) == 1 then
      return redis.error_reply("event '" .. ARGV[e] .. "' of item '" .. item .. "' is there already: ids are unique")
    end
  end
  at = at + 12 + 3 * count
  at = at + 1 + 3 * tonumber(ARGV[at])
  at = at + 1 + tonumber(ARGV[at])
end
if ARGV[1] == 'all' and #late > 0 then return late end
if ARGV[2] ~= '' then redis.call('HSET', KEYS[2], 'imported_stages', ARGV[2]) end
local units, others = 0, false
for n, start in ipairs(starts) do
  if start then
    local key, unit, count = 4 * n, ARGV[start + 10], tonumber(ARGV[start + 11])
    redis.call('SADD', KEYS[1], ARGV[start])
    redis.call('HDEL', KEYS[3], ARGV[start])
    for f, name in ipairs({
      'version', 'phase', 'event_count', 'parameters', 'checksum', 'updated_at', 'events_checksum'
    }) do redis.call('HSET', KEYS[key], name, ARGV[start + 2 + f]) end
    local e = start + 12
    for _ = 1, count do
      redis.call('HSET', KEYS[key + 1], ARGV[e], ARGV[e + 1])
      if ARGV[e + 2] ~= '' then redis.call('HSET', KEYS[key + 2], ARGV[e], ARGV[e + 2]) end
      redis.call('RPUSH', KEYS[key + 3], ARGV[e])
      e = e + 3
    end
    redis.call('LTRIM', KEYS[key + 3], -KEPT, -1)
    local corrected = tonumber(ARGV[e])
    e = e + 1
    for _ = 1, corrected do
      redis.call('HSET', KEYS[key + 1], ARGV[e], ARGV[e + 1])
      if ARGV[e + 2] ~= '' then redis.call('HSET', KEYS[key + 2], ARGV[e], ARGV[e + 2]) end
      e = e + 3
    end
    for d = e + 1, e + tonumber(ARGV[e]) do redis.call('HDEL', KEYS[key + 2], ARGV[d]) end
    if unit == '1' then units = units + count end
    if unit == '0' and count > 0 then others = true end
  end
end
if others then
  redis.call('HSET', KEYS[2], 'unit_interval_labels', 0)
elseif units > 0 then
  redis.call('HINCRBY', KEYS[2], 'unit_interval_labels', units)
end
return late
""".replace("KEPT", str(KEPT))
"""Write changes, each if its item has the version from which it was made; the numbers of those that are late are returned.

KEYS: items, model, deleted; of each change the item's four keys. ARGV: 'all' (all or none) or 'each'; imported stages or ''; of
each change: item, version before ('' if it is new), last version if it was deleted or '', the seven fields of its row, whether
its labels are in [0, 1] ('1', '0' or ''), number of events, of each id, row and values or '', the same of the earlier events whose
labels change, number of values to drop, their ids.
Everything is tested before anything is written: a script that fails halfway is not undone.
"""

FORGET = """
local gone = {}
for n, item in ipairs(ARGV) do
  local version = redis.call('HGET', KEYS[4 * n], 'version')
  if version then
    redis.call('HSET', KEYS[3], item, version)
    redis.call('SREM', KEYS[1], item)
    redis.call('DEL', KEYS[4 * n], KEYS[4 * n + 1], KEYS[4 * n + 2], KEYS[4 * n + 3])
    gone[#gone + 1] = item
  end
end
return gone
"""
"""Delete items but for their last versions; those that were there are returned. KEYS as for `WRITE`; ARGV: the items."""
