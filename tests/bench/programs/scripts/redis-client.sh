# What is asked of the server; not measured. Answers that anybody would give.
cli() { redis-cli -h 127.0.0.1 -p "$PORT" "$@"; }
for _ in $(seq 200); do
    if [ "$(cli ping 2>/dev/null)" = PONG ]; then break; fi
    sleep 0.05
done
redis-benchmark -h 127.0.0.1 -p "$PORT" -q -n 40000 -c 20 -d 200 -r 20000 -t set,get,incr,lpush,rpop,sadd,hset,zadd,lrange_100,mset >/dev/null
cli flushall
seq 3000 | awk '{ printf "SET key:%d %s\nRPUSH list:%d %d\nHSET hash:%d f%d %d\nZADD z %d m%d\n", $1, $1 * 7919 "value", $1 % 50, $1, $1 % 20, $1, $1, $1 * 31 % 1009, $1 }' | cli >/dev/null
cli dbsize
cli lrange list:7 0 -1 | cksum
cli zrange z 0 -1 withscores | cksum
cli hlen hash:3
cli mget key:1 key:777 key:3000
cli shutdown nosave
