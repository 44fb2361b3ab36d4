"""From images to a verified, profiled chip student. Run it anywhere: the 8x8 digits need no download."""

import sys
from pathlib import Path

import deploy
import neurokd

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/ten-lines")
data = neurokd.load_data("digits")
encoding = neurokd.Encoding("direct", bits=4, steps=8, raw_levels=data.levels)

teacher = neurokd.build("64-256-10", input_bits=4)
neurokd.train(teacher, data, epochs=20)
student = neurokd.distill(neurokd.build("64-48-10", input_bits=4), teacher, data, loss="sat-ce", epochs=20)
chip_student = neurokd.quantize(student, teacher, data, chip="loihi2", epochs=3)  # SAT loss still on
neurokd.export(chip_student, out / "student.nir")

program = deploy.lower(out / "student.nir", chip="loihi2")  # no torch from here on
images = encoding.encode(data.test.images, range(len(data.test))).reshape(-1, 64)
trace = deploy.run(program, images)  # every test image, on the integer simulator
proof = deploy.verify(program, images[:32], against=["reference", "simulator", "lava"]).raise_if_different()
deploy.profile(program, trace, chip="loihi1").to_html(out / "profile.html")

print(proof)
print(f"chip accuracy {trace.accuracy(data.test.labels):.2f} %")
