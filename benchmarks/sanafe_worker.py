"""Runs in SANA-FE's own environment, as a process of its own: ``python sanafe_worker.py ARCH.yaml IN.npz OUT.json``.

It loads a chip and a mapped network, runs it and writes down what SANA-FE counted. Nothing of this project imports it,
and it imports nothing of this project.
"""

import json
import sys

import numpy as np
import sanafe


def main(arch_path, network_path, out_path):
    """Run every sample on a freshly loaded chip."""
    data = np.load(network_path)
    facts = json.loads(bytes(data["facts"]).decode())
    samples = [run(arch_path, data, facts, sample) for sample in range(facts["samples"])]
    with open(out_path, "w", encoding="utf-8") as stream:
        json.dump(samples, stream)


def run(arch_path, data, facts, sample):
    """One sample: counts of every step, and every message between layers by source and destination core."""
    arch = sanafe.load_arch(arch_path)
    net = build(arch, data, facts, sample)
    chip = sanafe.SpikingChip(arch)
    chip.load(net)
    result = chip.sim(facts["steps"], timing_model=facts["timing"], perf_trace=True, message_trace=True)
    perf = {key: [float(x) for x in values] for key, values in result["perf_trace"].items()}
    inputs, hops, messages = [0, 0], [0, 0], 0
    for step in result["message_trace"]:
        for message in step:
            if message.get("placeholder") or int(message["mid"]) < 0:
                continue
            messages += 1
            from_input = message["src_neuron_group_id"] == "in"
            counts = inputs if from_input else hops
            source, target = int(message["src_tile_id"]), int(message["dest_tile_id"])
            height = facts["mesh_rows"]
            counts[0] += abs(source // height - target // height)
            counts[1] += abs(source % height - target % height)
    return {"perf": perf, "input_hops": inputs, "hops": hops, "messages": messages, "energy": result["energy"]}


def build(arch, data, facts, sample):
    """The network with its places on the chip."""
    net = sanafe.Network()
    cores = [core for tile in arch.tiles for core in tile.cores]
    groups = {}
    for layer in facts["layers"]:
        name = layer["name"]
        entering = name == "in"
        attributes = {} if entering else layer["attributes"]
        group = net.create_neuron_group(name, layer["size"], model_attributes=attributes)
        groups[name] = group
        places = data[f"core.{name}"]
        trains = data["spikes"][:, sample] if entering else None
        # Neurons must be mapped in order of their index within each core.
        for index, neuron in enumerate(group.neurons):
            if entering:
                train = [bool(x) for x in trains[:, index]] + [False] * layer["quiet"]
                neuron.set_attributes(soma_hw_name=f"loihi_inputs[{index % 1024}]", model_attributes={"spikes": train})
            else:
                neuron.set_attributes(soma_hw_name="loihi_lif", default_synapse_hw_name=layer["synapse"])
            neuron.map_to_core(cores[int(places[index])])
    for block in facts["synapses"]:
        pairs = data[f"pairs.{block['name']}"]
        weights = data[f"weights.{block['name']}"]
        groups[block["source"]].connect_neurons_sparse(
            groups[block["target"]],
            {"weight": [float(w) for w in weights]},
            [(int(a), int(b)) for a, b in pairs],
        )
    return net


if __name__ == "__main__":
    main(*sys.argv[1:4])
