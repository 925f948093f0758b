// A network of ours under traffic of ours, played by ns-3. Compiled where it is needed, by cppyy against the
// headers of the Python package ns3: see ndtwin/ns3_play.py.
//
// Two ways to carry a packet. Bare: point-to-point devices and nothing above them, a node hands on what it
// receives; the least work with which ns-3 can do this. Internet: UDP over IPv4 with static host routes, as
// ns-3 is ordinarily used. A packet's size includes all headers, so that it takes as long on a link as ours.
//
// A device sends one packet and queues the others: a buffer of K packets, the one in service included, is a
// queue of K - 1.
//
// The text that Play() reads, numbers with white space between them:
//   nodes, links, flows, internet (0 or 1), warm-up (s)
//   a link: source, capacity (bit/s), propagation delay (s), buffer (packets); 2k + 1 is the way back of 2k
//   a row of the table of routes, one a node: the link that leaves it towards every node, or -1
//   a flow: source, destination, packets, then the time (s) and octets of every packet
// What it says: seconds that ns-3 ran, packets that crossed a link; then for every flow how many packets
// entered after the warm-up, how many of them arrived, and the sum of their delays (s).

#include "ns3/drop-tail-queue.h"
#include "ns3/inet-socket-address.h"
#include "ns3/internet-stack-helper.h"
#include "ns3/ipv4-static-routing-helper.h"
#include "ns3/ipv4.h"
#include "ns3/node-container.h"
#include "ns3/point-to-point-channel.h"
#include "ns3/point-to-point-net-device.h"
#include "ns3/seq-ts-header.h"
#include "ns3/simulator.h"
#include "ns3/udp-socket-factory.h"

#include <chrono>
#include <sstream>
#include <string>
#include <vector>

namespace ndtwin
{
using namespace ns3;

constexpr uint16_t IPV4 = 0x0800;        // protocol of a frame
constexpr uint16_t PORT = 9;             // where sinks listen
constexpr uint32_t PPP_OCTETS = 2;       // header that a point-to-point device adds
constexpr uint32_t UDP_IP_OCTETS = 28;   // RFC 768, RFC 791
constexpr uint16_t MTU = 65535;          // nothing is fragmented

struct Flow
{
    uint32_t source, destination;
    std::vector<double> time;      // s
    std::vector<uint32_t> octets;
    size_t next = 0;               // packet to send
    Ptr<Socket> socket;            // internet only
    uint64_t sent = 0, arrived = 0;
    double sum = 0;
};

struct World
{
    bool internet = false;
    double warmUp = 0;
    uint64_t hops = 0;
    std::vector<Flow> flows;
    std::vector<std::vector<int>> route;
    std::vector<Ptr<PointToPointNetDevice>> devices;  // one a link, at its source
    std::vector<Ipv4Address> addresses;               // one a node
};

World* world = nullptr;  // ns-3 has one simulation a process, and plain functions as its callbacks

// ------------------------------------------------------------------------------------ a packet's way

void
CountHop(Ptr<const Packet>)
{
    ++world->hops;
}

void
Arrive(Ptr<const Packet> packet)
{
    SeqTsHeader header;
    packet->PeekHeader(header);
    if (header.GetTs().GetSeconds() >= world->warmUp)
    {
        Flow& flow = world->flows[header.GetSeq()];
        ++flow.arrived;
        flow.sum += (Simulator::Now() - header.GetTs()).GetSeconds();
    }
}

void
Forward(uint32_t node, uint32_t destination, Ptr<Packet> packet)
{
    auto device = world->devices[world->route[node][destination]];
    device->Send(packet, device->GetBroadcast(), IPV4);
}

bool
ReceiveFrame(Ptr<NetDevice> device, Ptr<const Packet> packet, uint16_t, const Address&)
{
    SeqTsHeader header;
    packet->PeekHeader(header);
    const uint32_t node = device->GetNode()->GetId();
    const uint32_t destination = world->flows[header.GetSeq()].destination;
    node == destination ? Arrive(packet) : Forward(node, destination, packet->Copy());
    return true;
}

void
ReceiveDatagram(Ptr<Socket> socket)
{
    while (Ptr<Packet> packet = socket->Recv())
    {
        Arrive(packet);
    }
}

void Emit(uint32_t index);

void
ScheduleNext(uint32_t index)
{
    const Flow& flow = world->flows[index];
    if (flow.next < flow.time.size())
    {
        Simulator::Schedule(Seconds(flow.time[flow.next]) - Simulator::Now(), &Emit, index);
    }
}

void
Emit(uint32_t index)
{
    Flow& flow = world->flows[index];
    SeqTsHeader header;  // takes the time by itself
    header.SetSeq(index);
    const uint32_t octets = flow.octets[flow.next++];
    const uint32_t headers = header.GetSerializedSize() + PPP_OCTETS + (world->internet ? UDP_IP_OCTETS : 0);
    Ptr<Packet> packet = Create<Packet>(octets - headers);
    packet->AddHeader(header);
    flow.sent += header.GetTs().GetSeconds() >= world->warmUp;
    if (world->internet)
    {
        flow.socket->SendTo(packet, 0, InetSocketAddress(world->addresses[flow.destination], PORT));
    }
    else
    {
        Forward(flow.source, flow.destination, packet);
    }
    ScheduleNext(index);
}

// ------------------------------------------------------------------------------------------ building

Ptr<PointToPointNetDevice>
MakeDevice(Ptr<Node> node, Ptr<PointToPointChannel> channel, double bps, uint32_t bufferPackets)
{
    auto queue = CreateObject<DropTailQueue<Packet>>();
    queue->SetMaxSize(QueueSize(QueueSizeUnit::PACKETS, bufferPackets - 1));
    auto device = CreateObject<PointToPointNetDevice>();
    device->SetAddress(Mac48Address::Allocate());
    device->SetDataRate(DataRate(static_cast<uint64_t>(bps)));
    device->SetQueue(queue);
    device->SetMtu(MTU);
    device->TraceConnectWithoutContext("MacRx", MakeCallback(&CountHop));
    node->AddDevice(device);
    device->Attach(channel);
    return device;
}

void
ReadLinks(std::istream& text, const NodeContainer& nodes, int links)
{
    Ptr<PointToPointChannel> channel;
    for (int link = 0; link < links; ++link)
    {
        uint32_t source, bufferPackets;
        double bps, delay;
        text >> source >> bps >> delay >> bufferPackets;
        if (link % 2 == 0)
        {
            channel = CreateObject<PointToPointChannel>();
            channel->SetAttribute("Delay", TimeValue(Seconds(delay)));
        }
        world->devices.push_back(MakeDevice(nodes.Get(source), channel, bps, bufferPackets));
    }
}

void
ReadRoutes(std::istream& text, int nodes)
{
    world->route.assign(nodes, std::vector<int>(nodes));
    for (auto& row : world->route)
    {
        for (int& link : row)
        {
            text >> link;
        }
    }
}

void
ReadFlows(std::istream& text, int flows)
{
    world->flows.resize(flows);
    for (Flow& flow : world->flows)
    {
        size_t packets;
        text >> flow.source >> flow.destination >> packets;
        flow.time.resize(packets);
        flow.octets.resize(packets);
        for (size_t i = 0; i < packets; ++i)
        {
            text >> flow.time[i] >> flow.octets[i];
        }
    }
}

void
InstallBare()
{
    for (auto& device : world->devices)
    {
        device->SetReceiveCallback(MakeCallback(&ReceiveFrame));
    }
}

std::vector<uint32_t>
AddInterfaces()  // not by Ipv4AddressHelper, which puts a queue discipline before every device
{
    std::vector<uint32_t> interfaces;  // one a link
    for (size_t link = 0; link < world->devices.size(); ++link)
    {
        Ptr<Node> node = world->devices[link]->GetNode();
        Ptr<Ipv4> ipv4 = node->GetObject<Ipv4>();
        const Ipv4Address address(0x0a000000 + 4 * (link / 2) + 1 + link % 2);
        interfaces.push_back(ipv4->AddInterface(world->devices[link]));
        ipv4->AddAddress(interfaces.back(), Ipv4InterfaceAddress(address, Ipv4Mask("255.255.255.252")));
        ipv4->SetUp(interfaces.back());
        world->addresses[node->GetId()] = address;
    }
    return interfaces;
}

Ptr<Socket>
OpenSocket(Ptr<Node> node, uint16_t port)
{
    Ptr<Socket> socket = Socket::CreateSocket(node, UdpSocketFactory::GetTypeId());
    socket->Bind(InetSocketAddress(Ipv4Address::GetAny(), port));
    return socket;
}

void
InstallInternet(const NodeContainer& nodes)
{
    InternetStackHelper stack;
    stack.SetRoutingHelper(Ipv4StaticRoutingHelper());
    stack.Install(nodes);
    world->addresses.resize(nodes.GetN());
    const std::vector<uint32_t> interfaces = AddInterfaces();
    for (uint32_t from = 0; from < nodes.GetN(); ++from)
    {
        auto routing = Ipv4StaticRoutingHelper().GetStaticRouting(nodes.Get(from)->GetObject<Ipv4>());
        for (uint32_t to = 0; to < nodes.GetN(); ++to)
        {
            if (const int link = world->route[from][to]; link >= 0)
            {
                routing->AddHostRouteTo(world->addresses[to], interfaces[link]);
            }
        }
        OpenSocket(nodes.Get(from), PORT)->SetRecvCallback(MakeCallback(&ReceiveDatagram));
    }
    for (Flow& flow : world->flows)
    {
        flow.socket = OpenSocket(nodes.Get(flow.source), 0);
    }
}

// ------------------------------------------------------------------------------------------- playing

std::string
Report(double wall)
{
    std::ostringstream said;
    said.precision(17);
    said << wall << ' ' << world->hops << '\n';
    for (const Flow& flow : world->flows)
    {
        said << flow.sent << ' ' << flow.arrived << ' ' << flow.sum << '\n';
    }
    return said.str();
}

std::string
Play(const std::string& scenario)
{
    World own;
    world = &own;
    std::istringstream text(scenario);
    int nodeCount, links, flows;
    text >> nodeCount >> links >> flows >> own.internet >> own.warmUp;
    NodeContainer nodes;
    nodes.Create(nodeCount);
    ReadLinks(text, nodes, links);
    ReadRoutes(text, nodeCount);
    ReadFlows(text, flows);
    own.internet ? InstallInternet(nodes) : InstallBare();
    for (uint32_t i = 0; i < own.flows.size(); ++i)
    {
        ScheduleNext(i);
    }
    const auto began = std::chrono::steady_clock::now();
    Simulator::Run();
    const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - began;
    const std::string said = Report(wall.count());
    Simulator::Destroy();
    return said;
}
} // namespace ndtwin
