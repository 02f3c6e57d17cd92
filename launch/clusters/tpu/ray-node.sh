#!/bin/bash
# Has every host of a Cloud TPU slice join a Ray cluster as a node. Ray itself sees the chips, and labels the nodes of a
# slice, which a run then takes whole:
#
#   phalanx tpu create one --type v5litepod-16 --startup-script launch/clusters/tpu/ray-node.sh
#   phalanx train CONFIG cluster.kind=ray cluster.ray.slice=v5litepod-16
#
# Before: edit the next four lines. The secret holds the cluster's token (~/.ray/auth_token of its head), and the hosts'
# service account may read it. The versions of Python, Ray and Phalanx must be the cluster's.
head=${RAY_HEAD:-10.0.0.2:6379}
secret=${RAY_TOKEN_SECRET:-ray-token}
package=${PHALANX_PACKAGE-phalanx}
ray=${RAY_PACKAGE-ray==2.60.0}

set -e
if [ -n "$package" ]; then
  python3 -m venv /opt/phalanx
  export PATH="/opt/phalanx/bin:$PATH"
  pip install --quiet 'tensorflow-tpu==2.20.0' 'libtpu==0.0.20' 'keras>=3.12,<3.16'
  pip install --quiet --no-deps "$package" 'tensorflow-serving-api>=2.19'
  pip install --quiet numpy pillow pydantic pyyaml rich safetensors psutil google-crc32c prometheus-client tokenizers \
    typer tensorboard "$ray"
fi
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(gcloud secrets versions access latest "--secret=$secret")}
export RAY_AUTH_TOKEN

# One process on the first host drives the chips of all, through a server on each.
metadata() {
  curl -sf -H 'Metadata-Flavor: Google' "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}
number=$(metadata agent-worker-number || echo 0)
endpoints=$(metadata worker-network-endpoints || echo)
case "$endpoints" in
*,*) while :; do python3 -m launch.tpu_server "$number" "$endpoints"; sleep 2; done & ;;
esac

# A node that has lost its head, or whose raylet has died, joins again.
set +e
while :; do
  # shellcheck disable=SC2086
  ray start --address="$head" --block $RAY_OPTIONS
  sleep 2
done
