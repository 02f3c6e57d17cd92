"""The server of one host of a Cloud TPU slice of several: through it the worker on the first host drives its chips.

python -m launch.tpu_server NUMBER ENDPOINTS

A TPU's own images run such a server; a host on which pip has installed TensorFlow has none. NUMBER is the host's, and
ENDPOINTS is what the metadata of the slice's machines call worker-network-endpoints.
"""

import sys

# Where the Cloud TPU API says that a host's server listens.
PORT = 8470


def addresses_of(endpoints: str) -> list[str]:
    """The addresses of a slice's servers, in the order of the hosts' numbers.

    >>> addresses_of("unknown:unknown:10.0.0.2,unknown:unknown:10.0.0.3")
    ['10.0.0.2:8470', '10.0.0.3:8470']
    """
    parts = [endpoint.split(":")[2:4] for endpoint in endpoints.split(",")]
    return [f"{address}:{port[0] if port else PORT}" for address, *port in parts]


def main() -> None:
    """Serves until it is ended: it has no end of its own."""
    number, addresses = int(sys.argv[1]), addresses_of(sys.argv[2])
    import tensorflow as tf

    server = tf.distribute.Server({"worker": addresses}, job_name="worker", task_index=number, protocol="grpc")
    print(f"host {number} of {len(addresses)} serves at {addresses[number]}", flush=True)
    server.join()


if __name__ == "__main__":
    main()
