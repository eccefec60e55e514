"""The content of a file that may reach far: what was written, page by page, and zeros elsewhere."""

PAGE = 4096


class SparseBytes:
    """touched: pages that something was written to, zeros or not, and that were not cut off since."""

    def __init__(self, data: bytes = b"") -> None:
        self.size = 0
        self.touched: set[int] = set()
        self._pages: dict[int, bytearray] = {}
        self.write(0, data)
        self.touched.clear()

    def __len__(self) -> int:
        return self.size

    def read(self, offset: int, length: int) -> bytes:
        end = min(self.size, offset + length)
        parts = []
        while offset < end:
            start = offset % PAGE
            stop = min(PAGE, start + end - offset)
            page = self._pages.get(offset // PAGE)
            parts.append(bytes(stop - start) if page is None else bytes(page[start:stop]))
            offset += stop - start
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        self.size = max(self.size, offset + len(data))
        done = 0
        while done < len(data):
            number, start = divmod(offset + done, PAGE)
            part = data[done : done + PAGE - start]
            self._pages.setdefault(number, bytearray(PAGE))[start : start + len(part)] = part
            self.touched.add(number)
            done += len(part)

    def resize(self, size: int) -> None:
        if size < self.size:
            first = -(-size // PAGE)
            for number in [number for number in self._pages if number >= first]:
                del self._pages[number]
            self.touched = {number for number in self.touched if number < first}
            if size % PAGE and first - 1 in self._pages:
                self._pages[first - 1][size % PAGE :] = bytes(PAGE - size % PAGE)
        self.size = size

    def copy(self) -> "SparseBytes":
        copy = SparseBytes()
        copy.size, copy.touched = self.size, set(self.touched)
        copy._pages = {number: page[:] for number, page in self._pages.items()}
        return copy

    @property
    def pages(self) -> list[int]:
        """Those that are kept, in order; holes are the others."""
        return sorted(self._pages)

    @property
    def solid(self) -> int:
        """Pages that are not all zeros."""
        return sum(any(page) for page in self._pages.values())

    def places(self) -> list[tuple[int, int]]:
        """Offsets and lengths that are worth looking at: all that was written with its surroundings, and some of each
        hole."""
        wanted = {0, self.size // PAGE, self.size // PAGE // 2}
        for number in self._pages:
            wanted |= {max(0, number - 1), number, number + 1}
        places: list[tuple[int, int]] = []
        for number in sorted(wanted):
            if places and places[-1][0] + places[-1][1] == number * PAGE:
                places[-1] = places[-1][0], places[-1][1] + PAGE
            else:
                places.append((number * PAGE, PAGE))
        return places
