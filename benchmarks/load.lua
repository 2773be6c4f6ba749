-- The load on one path, and a look at the content of every answer.
--
-- Arguments (after --): key=value, of
--   path    repeat | first | bulk | event | batch
--   check   json: an answer must be for a user or an event that is waiting for one, and say the right thing about it
--           size: an answer must be a 200 with `size` bytes (the raw handler, which knows no users)
--   key     bearer key        target  path of the request, up to the user where there is one
--   users   how many there are for `repeat` (u0000000 …; the odd ones have the treatment)
--   salt    makes users and event ids of this run unlike those of any other
--   events  events in a batch, or users of a bulk assignment
--   ids     whether the caller gives ids to the events of a batch
--   pause   milliseconds from an answer to the next request of its connection; and `first` may be refused then

local option = {}
local head, seed
local sent = 0
local waiting = {}
answers, wrong, unheard = 0, 0, 0
sample = ""

local format, random, find, match = string.format, math.random, string.find, string.match
local ffi = require("ffi")

function init(arguments)
  for _, argument in ipairs(arguments) do
    local name, value = match(argument, "^(%w+)=(.*)$")
    if name then option[name] = value end
  end
  option.users = tonumber(option.users or 0)
  option.size = tonumber(option.size or 0)
  option.events = tonumber(option.events or 100)
  option.salt = (option.salt or "") .. (thread and "-" .. thread .. "-" or "")
  math.randomseed(tonumber(option.seed or 1))
  head = " HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " .. option.key .. "\r\n"
  request = _G["request_" .. option.path]
  if option.pause then return init_paced() end
  local check = _G["check_" .. (option.check == "size" and "size" or option.path)]
  response = function(status, headers, body)
    answers = answers + 1
    if not check(status, body) then
      wrong = wrong + 1
      if wrong == 1 then sample = status .. " " .. body:sub(1, 300) end
    end
  end
end

-- With a pause as many requests are sent as there are connections for, answered or refused: what is taken is
-- counted apart, with its time from request to answer, all and that of the first second.
paced, refused, taken, early = false, 0, {}, {}
ffi.cdef("typedef struct { long s, n; } moment; int clock_gettime(int, moment *);")
local moment = ffi.new("moment")

local function clock()
  ffi.C.clock_gettime(1, moment)
  return tonumber(moment.s) * 1e3 + tonumber(moment.n) / 1e6
end

function init_paced()
  local pause, sent_at, began = tonumber(option.pause), {}, clock()
  paced = true
  delay = function() return pause end
  request = function()
    sent = sent + 1
    sent_at[option.salt .. sent] = clock()
    return "GET " .. option.target .. option.salt .. sent .. head .. "\r\n"
  end
  response = function(status, headers, body)
    answers = answers + 1
    local id = match(body, '"user_id":"([^"]*)"')
    local at = id and sent_at[id]
    if status == 503 and headers["retry-after"] == "1" and find(body, '"code":"overloaded"', 1, true) then
      refused = refused + 1
    elseif status == 200 and at and find(body, '"variant":"', 1, true) then
      local took = math.floor(clock() - at)
      taken[took] = (taken[took] or 0) + 1
      if at < began + 1000 then early[took] = (early[took] or 0) + 1 end
      sent_at[id] = nil
    else
      wrong = wrong + 1
      if wrong == 1 then sample = status .. " " .. body:sub(1, 300) end
    end
  end
end

local function expect(id) waiting[id] = (waiting[id] or 0) + 1 end

-- One answer for each request, and none that nobody asked for.
local function heard(id)
  local left = id and waiting[id]
  if not left then return false end
  waiting[id] = left > 1 and left - 1 or nil
  return true
end

local function get(user)
  if option.check == "json" then expect(user) end
  return "GET " .. option.target .. user .. head .. "\r\n"
end

local function post(body)
  return "POST " .. option.target .. head .. "Content-Type: application/json\r\nContent-Length: " .. #body
    .. "\r\n\r\n" .. body
end

local function uuid()
  return format("%08x-%04x-4%03x-8%03x-%06x%06x", random(0, 0xffffffff), random(0, 0xffff), random(0, 0xfff),
    random(0, 0xfff), random(0, 0xffffff), random(0, 0xffffff))
end

local function event(user, id)
  return (id and '{"event_id":"' .. id .. '","user_id":"' or '{"user_id":"') .. user
    .. '","type":"purchase","timestamp":"' .. option.now .. '","value":' .. random(1, 99)
    .. '.5,"properties":{"currency":"EUR","items":2}}'
end

function request_repeat() return get(format("u%07d", random(0, option.users - 1))) end

function check_repeat(status, body)
  local user = match(body, '"user_id":"([^"]*)"')
  if status ~= 200 or not heard(user) then return false end
  local variant = tonumber(user:sub(2)) % 2 == 1 and '"variant":"treatment"' or '"variant":"control"'
  return find(body, variant, 1, true) ~= nil
end

function request_first()
  sent = sent + 1
  return get(option.salt .. sent)
end

function check_first(status, body)
  return status == 200 and heard(match(body, '"user_id":"([^"]*)"')) and find(body, '"variant":"', 1, true) ~= nil
end

-- Users that nobody has asked for, so that each call stores as many rows.
function request_bulk()
  sent = sent + 1
  local users = {}
  for i = 1, option.events do users[i] = '"' .. option.salt .. sent .. "-" .. i .. '"' end
  if option.check == "json" then expect(option.salt .. sent .. "-1") end
  return post('{"experiments":["bench"],"user_ids":[' .. table.concat(users, ",") .. "]}")
end

function check_bulk(status, body)
  return status == 200 and heard(match(body, '"user_id":"([^"]*)"')) and find(body, '"variant":"', 1, true) ~= nil
    and find(body, '"total":' .. option.events .. "}", 1, true) ~= nil
end

function request_event()
  local id = uuid()
  if option.check == "json" then expect(id) end
  return post(event(format("u%07d", random(0, option.users - 1)), id))
end

function check_event(status, body)
  return status == 201 and heard(match(body, '"event_id":"([^"]*)"'))
end

-- Building a hundred events for each request would make the load the bottleneck. Some requests are made once;
-- with ids, each sending writes a new number over the beginning of every id of the body, in place.
local made = {}

local function make(number)
  local parts = {}
  for i = 1, option.events do
    local id = option.ids == "yes" and "########" .. uuid():sub(9) or nil
    parts[i] = event(format("u%07d", random(0, option.users - 1)), id)
  end
  local text = post("[" .. table.concat(parts, ",") .. "]")
  local one = { size = #text, bytes = ffi.new("char[?]", #text), places = {}, tail = match(text, "########([^\"]*)") }
  ffi.copy(one.bytes, text, #text)
  local at = find(text, "########", 1, true)
  while at do
    one.places[#one.places + 1] = at - 1
    at = find(text, "########", at + 8, true)
  end
  made[number] = one
  return one
end

function request_batch()
  local number = random(1, 64)
  local one = made[number] or make(number)
  if option.ids == "yes" then
    local fresh = format("%08x", random(0, 0xffffffff))
    for i = 1, #one.places do ffi.copy(one.bytes + one.places[i], fresh, 8) end
    if option.check == "json" then expect(fresh .. one.tail) end
  end
  return ffi.string(one.bytes, one.size)
end

function check_batch(status, body)
  return status == 202 and find(body, '"accepted":' .. option.events .. ",", 1, true) ~= nil
    and find(body, '"duplicates":0,', 1, true) ~= nil and find(body, '"rejected":[]', 1, true) ~= nil
    and (option.ids ~= "yes" or heard(match(body, '"event_ids":%["([^"]*)"')))
end

function check_size(status, body) return status == 200 and #body == option.size end

local threads = {}
function setup(thread)
  threads[#threads + 1] = thread
  thread:set("thread", #threads)
end

-- How many there are in histograms by the millisecond, and the milliseconds within which a share of them lies.
local function ranks(name, ...)
  local all, number, most, found = {}, 0, 0, {}
  for _, thread in ipairs(threads) do
    for took, count in pairs(thread:get(name)) do
      took = tonumber(took)
      all[took] = (all[took] or 0) + count
      number, most = number + count, math.max(most, took)
    end
  end
  for at, share in ipairs({ ... }) do
    local seen, took = 0, 0
    while took < most and seen + (all[took] or 0) < share * number do
      seen, took = seen + (all[took] or 0), took + 1
    end
    found[at] = took
  end
  return number, unpack(found)
end

function done(summary, latency)
  local checked, bad, shown = 0, 0, ""
  for _, thread in ipairs(threads) do
    checked = checked + thread:get("answers")
    bad = bad + thread:get("wrong")
    if shown == "" then shown = thread:get("sample") end
  end
  local errors = summary.errors
  io.write(format("RESULT requests=%d micros=%d checked=%d wrong=%d broken=%d timeouts=%d p50=%d p99=%d max=%d\n",
    summary.requests, summary.duration, checked, bad, errors.connect + errors.read + errors.write,
    errors.timeout, latency:percentile(50), latency:percentile(99), latency.max))
  if threads[1]:get("paced") then
    local turned_away = 0
    for _, thread in ipairs(threads) do turned_away = turned_away + thread:get("refused") end
    local number, middle, high, highest = ranks("taken", 0.5, 0.99, 0.999)
    local _, first = ranks("early", 0.5)
    io.write(format("PACED taken=%d refused=%d p50=%d p99=%d p999=%d first=%d\n", number, turned_away, middle, high,
      highest, first))
  end
  if bad > 0 then io.write("WRONG " .. shown .. "\n") end
end
