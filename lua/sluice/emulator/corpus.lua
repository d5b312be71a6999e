-- SPDX-License-Identifier: MIT
-- The text that the emulator's language model is trained on: written for Sluice, no quotation.
-- Plain sentences with plain punctuation (no quotes, no brackets), a blank line between paragraphs.

return [[
A river begins as rain on a hill. The rain finds the low places in the grass, the low places join,
and a small stream runs down to the valley. The stream is quick and clear, and it carries sand,
leaves and the colour of the ground. Where two streams meet, the water grows deeper and the noise
grows less. By the time the stream has a name, it has already done most of its work.

The water in a river is never still. It slows down behind a stone, it turns in a pool, and it runs
fast again over the gravel. On the outside of a bend the water cuts the bank away. On the inside of
the bend the water lays down sand. So the river moves across the valley, a hand's width in a year,
and the fields move with it.

A weir is a low wall across a river. It holds the water back and makes the river deeper above the
wall. The water runs over the top of the weir in a thin bright sheet, and the noise of it can be
heard from the mill. When the river is low, the weir keeps enough water for the mill. When the river
is high, the weir does nothing at all, because the flood runs over it.

A sluice is a gate in a channel. When the gate is shut, the water stands behind it and waits. When
the gate is open, the water runs through and does its work. A good sluice can also be open a little,
so that the water runs slowly and evenly. The keeper of the sluice does not make the water. He only
says when it may pass, and how much of it may pass at once.

The gate of a sluice is made of oak or of iron. It slides up and down in two grooves, one in each
wall of the channel. A screw or a rack lifts the gate, because the water pushes hard against it and
makes it heavy. Below the gate there is a floor of stone, so that the fast water does not dig a
hole. A gate that leaks a little is not a bad gate. A gate that sticks is a bad gate.

The keeper looks at the water every morning. He reads the level on a painted board, and he writes
the level in a book. If the level is high, he opens the gate before the rain comes, and not after
it. If the level is low, he shuts the gate and waits for the night. A keeper who waits too long has
a flood in his kitchen. A keeper who opens too soon has a dry mill and an angry miller.

A canal is a river that people have made. It has no bends that it does not need, and it has no
current to speak of. The water in a canal comes from a river or from a lake in the hills. Every boat
that goes down the canal takes some of the water with it, and so the lake must be filled again by
the rain. In a dry summer the boats wait for the water, and the boatmen sit on the bank and talk.

A lock is a chamber with a gate at each end. It lifts a boat from the low water to the high water,
or it lets a boat down. The boat comes in at the low end, and the low gate is shut behind it. Then
the keeper opens a small sluice in the high gate, and the water runs in until the chamber is full.
When the water in the lock stands as high as the water above it, the high gate opens by itself with
a light push. The boat goes out, and the lock waits for the next one.

A lock can hold one boat or two boats, but it cannot hold three. When many boats come at once, they
wait in a line along the bank, and the first to come is the first to go up. It does not help to
push. It does not help to shout at the keeper. A boat that leaves the line and comes back must wait
at the end of it, and so the wise boatman stays where he is and makes tea.

Both gates of a lock must never be open at once. If they were, the water would run through from the
high end to the low end, and it would take the boats with it. For this reason the keeper shuts one
gate before he opens the other, and he looks twice. Most of the rules on a canal are simple, and
most of them were written after an accident.

The mill stands beside the river and takes a part of the water. A narrow channel leaves the river
above the weir and runs to the mill wheel. At the head of the channel there is a sluice, and the
miller opens it when there is corn to grind. The water falls on the wheel, the wheel turns the
shaft, and the shaft turns the stone. Below the mill the water goes back to the river as if nothing
had happened.

A mill wheel is slow and strong. Some wheels stand in the stream and are pushed by the water that
runs under them. Some wheels take the water from above, and the weight of the water turns them. The
second kind does more work with less water, but it needs a fall. A miller with a fall of three
metres is a rich man in a wet year and a patient man in a dry year.

The stone of the mill must not turn too fast. If it turns too fast, the flour grows hot and the
bread tastes of smoke. If it turns too slowly, the corn is only broken and not ground. The miller
listens to the stone, and he opens or shuts the sluice by a finger's width until the sound is right.
He says that the ear is the best gauge in the mill.

When the flood comes, the river is brown and loud. It carries branches, gates, hay and sometimes a
boat that was badly tied. The keeper opens every sluice and takes the boards out of the weir, so
that the water can pass. There is no use in holding back a flood. It is better to let the water go
where it does little harm, over the meadows, and to hold the banks where people sleep.

After the flood the meadows are covered with fine mud, and the grass grows better than before. The
keeper walks along the bank and looks for holes. A small hole in a bank is filled with clay in an
hour. A large hole in a bank takes a week and twenty people. So the keeper looks for small holes,
and he looks for them every year.

In winter the canal freezes, and the boats stay where they are. An ice boat with an iron bow is
pulled by eight horses, and men rock it from side to side to break the ice. The ice grows again in
the night. When it is too thick, the keeper drains a little water out of the canal, so that the ice
hangs without support and breaks under its own weight.

In summer the reeds grow high along the bank. A heron stands in the low water below the weir and
waits for the fish that come over it. Swallows take mud from the edge of the canal for their nests
under the bridge. Children swim in the pool below the lock, although the keeper has told them not
to. In the evening the water is as flat as a table, and every sound goes across it.

Water remembers nothing, but people must remember the water. They cut a line in the wall of the mill
for every great flood, with the year beside it. The highest line is above the door. Whoever builds a
house near the river should look at that line first, and at the price of the field after it.

To share water is harder than to hold it. The miller wants the water by day, the farmer wants the
water in the dry month, and the boatman wants the water always. The old answer is a board with a
notch in it. Each of them has a notch of a certain width, and the water itself divides the stream.
Nobody needs to trust the keeper, because everybody can see the notch.

At the end a river grows wide and slow. It drops the last of its sand and makes new land, and it
runs to the sea through many mouths. Twice a day the tide pushes the water back up the river, and a
gate at the mouth is shut by the tide itself. When the tide falls, the gate opens, and the river
runs out. No keeper is needed there, only a hinge and a little grease.
]]
