#!/usr/bin/env bash
# The peer: two `torchrun --nnodes 2` by hand, in the same kind of namespaces as the local executor makes.
# usage: peer.sh PYTHON SCRIPT   (as root; everything ends with this process)
set -eu
python=$1 script=$2
export python script OMP_NUM_THREADS=1
exec unshare -m -n -p -f --kill-child --mount-proc bash -c '
  ip link set lo up; ip link add br0 type bridge; ip addr add 10.78.0.1/24 dev br0; ip link set br0 up
  printf "127.0.0.1 localhost\n" > /dev/shm/peer-hosts-$$
  for i in 1 2; do printf "10.78.0.1%d algo-%d\n::ffff:10.78.0.1%d algo-%d\n" $i $i $i $i >> /dev/shm/peer-hosts-$$; done
  echo "nameserver 127.0.0.1" > /dev/shm/peer-resolv-$$
  mount -n --bind /dev/shm/peer-hosts-$$ /etc/hosts; mount -n --bind /dev/shm/peer-resolv-$$ /etc/resolv.conf
  rm -f /dev/shm/peer-hosts-$$ /dev/shm/peer-resolv-$$
  pids=""
  for i in 1 2; do
    mkfifo /dev/shm/peer-go-$$-$i
    unshare -m -n -u -i bash -c "read _ < /dev/shm/peer-go-$$-$i; hostname algo-$i; ip link set lo up; ip addr add 10.78.0.1$i/24 dev eth0; ip link set eth0 up
      exec \$python -m torch.distributed.run --nnodes 2 --nproc_per_node 2 --master_addr algo-1 --master_port 7777 --node_rank $((i-1)) \$script" &
    pid=$!; pids="$pids $pid"
    until [ "$(readlink /proc/$pid/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do :; done
    ip link add v$i type veth peer name eth0 netns $pid; ip link set v$i master br0 up
    echo go > /dev/shm/peer-go-$$-$i; rm -f /dev/shm/peer-go-$$-$i
  done
  status=0; for pid in $pids; do wait $pid || status=1; done; exit $status'
