"""Raw files to shards of shuffled records: docs/design/preparation.md.

What is in here knows neither processes nor machines: it says which tasks there are and carries one out. Nothing of it
imports TensorFlow.
"""
