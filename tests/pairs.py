"""Pairwise selection: of the combinations of several options, few that have any two of them beside each other."""

from itertools import product


def pairs(*axes):
    """Rows, one value of each axis, in which any two values of two axes meet; the same rows on every run.

    What two options do wrong together is found by them as it is by all combinations, which are many times more: here as
    many as the two longest axes have, or a few more.
    """
    places = sorted(range(len(axes)), key=lambda place: -len(axes[place]))
    first, second, *others = places
    rows = [{first: i, second: j} for i, j in product(range(len(axes[first])), range(len(axes[second])))]
    done = [first, second]
    for place in others:
        values = range(len(axes[place]))
        missing = {(other, i, value) for other in done for i in range(len(axes[other])) for value in values}

        def gain(row, value, place=place, missing=missing):
            return sum((other, row[other], value) in missing for other in row if other != place)

        for number, row in enumerate(rows):
            # Of values that are as good, another one in each row.
            row[place] = max(values, key=lambda v, row=row, n=number: (gain(row, v), (v - n) % len(values)))
            missing -= {(other, row[other], row[place]) for other in done}
        while missing:
            wanted, i, value = min(missing)
            row = {wanted: i}
            for other in done:
                if other != wanted:
                    row[other] = next((j for o, j, v in sorted(missing) if (o, v) == (other, value)), 0)
            row[place] = value
            missing -= {(other, row[other], value) for other in done}
            rows.append(row)
        done.append(place)
    return [tuple(axis[row[place]] for place, axis in enumerate(axes)) for row in rows]
