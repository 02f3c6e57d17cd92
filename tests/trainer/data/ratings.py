"""A small folder of made-up ratings in the form of MovieLens: two groups of people, each with films of its own."""

from pathlib import Path

import numpy as np

NUM_USERS, NUM_ITEMS, PER_USER = 30, 40, 10


def write_ratings(folder: Path, seed: int = 0) -> Path:
    """Everybody rates films of their own group only, odd or even, and likes those with a number below the middle."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(1, NUM_USERS + 1):
        films = rng.permutation(np.arange(1 + user % 2, NUM_ITEMS + 1, 2))[:PER_USER]
        for film in films:
            stars = rng.integers(4, 6) if film <= NUM_ITEMS // 2 else rng.integers(1, 4)
            lines.append(f"{user}\t{film}\t{stars}\t{880_000_000 + rng.integers(0, 10_000)}")
    rng.shuffle(lines[1:])
    (folder / f"{folder.name}.inter").write_text("\n".join(lines) + "\n")
    people = [f"{user}\t{20 + user}\t{'MF'[user % 3 > 0]}\tother\t00000" for user in range(1, NUM_USERS + 1)]
    header = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"
    (folder / f"{folder.name}.user").write_text("\n".join([header, *people]) + "\n")
    years = {3: "", 5: "V"}  # as in the real file
    films = [
        f'{film}\t"Film" {film}\t{years.get(film, 1980 + film % 20)}\t{"Drama War" if film % 4 else "Comedy"}'
        for film in range(1, NUM_ITEMS + 1)
    ]
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    (folder / f"{folder.name}.item").write_text("\n".join([header, *films]) + "\n")
    return folder
